"""Bytes per parameter of the model states, by the formulas of the ZeRO paper.

Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models,
arXiv 1910.02054, sections 3.1 and 5. What is measured lies above: buckets, padding, and DeepSpeed's
own fp32 copy where the model is fp32 already.
"""

from __future__ import annotations

from zerogate.config.strategy import Strategy
from zerogate.devices.capacity import MOMENTS_BYTES
from zerogate.protocol.cell import Tier

MASTER_BYTES = 4
"""The fp32 copy of parameters that are held in fewer bits."""


def paper_bytes_per_parameter(
    strategy: Strategy, world_size: int, parameter_bytes: int, tier: Tier
) -> float:
    """Parameters, gradients and optimizer states of one rank, divided by the model's parameters.

    ``parameter_bytes`` is the size of one as it is trained: 4 or 2. FSDP2 shards as stage 3 does. What
    is offloaded is not counted, to the host neither where that is another memory than the device's.
    """
    elsewhere = ("nvme",) if tier == "cpu" else ("nvme", "cpu")
    parameters = gradients = float(parameter_bytes)
    optimizer = float(MOMENTS_BYTES + (MASTER_BYTES if parameter_bytes < MASTER_BYTES else 0))
    stage = 3 if strategy.distributed_type == "FSDP" else strategy.zero_stage
    if stage >= 1:
        optimizer /= world_size
    if stage >= 2:
        gradients /= world_size
    if stage >= 3:
        parameters /= world_size
    if strategy.offload_optimizer in elsewhere:
        optimizer = 0.0
    if strategy.offload_param in elsewhere:
        parameters = 0.0
    return parameters + gradients + optimizer
