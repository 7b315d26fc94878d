"""Bytes per parameter of the model states, by the formulas of the ZeRO paper.

Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models,
arXiv 1910.02054, sections 3.1 and 5. Measured values are larger: they include buckets, padding, and
the fp32 copy that DeepSpeed makes even of a model in fp32.
"""

from __future__ import annotations

from zerogate.config.strategy import Strategy
from zerogate.devices.capacity import MOMENTS_BYTES
from zerogate.protocol.cell import Tier

MASTER_BYTES = 4
"""Bytes per parameter of the fp32 copy, which exists if parameters are held in fewer bits."""


def paper_bytes_per_parameter(
    strategy: Strategy, world_size: int, parameter_bytes: int, tier: Tier
) -> float:
    """Return the bytes of one rank's parameters, gradients and optimizer states per model parameter.

    ``parameter_bytes`` is the size of a parameter in training: 4 or 2. FSDP2 shards as stage 3 does.
    Offloaded states are not counted, except those offloaded to the host on the cpu tier, where host
    memory is the device's memory.
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
