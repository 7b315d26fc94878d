"""Bytes per parameter of the model states, by the formulas of the ZeRO and ZeRO-Offload papers.

Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models,
arXiv 1910.02054, sections 3.1 and 5; Ren et al., ZeRO-Offload, arXiv 2101.06840, section 3. Measured
values are larger: they include buckets, padding, and the fp32 copy that DeepSpeed makes even of a model
in fp32.
"""

from __future__ import annotations

from typing import NamedTuple

from zerogate.config.strategy import Strategy
from zerogate.devices.capacity import FULL_BYTES, HALF_BYTES, MOMENTS_BYTES
from zerogate.metrics.measurement import Measurement

MASTER_BYTES = 4
"""Bytes per parameter of the fp32 copy, which exists if parameters are held in fewer bits."""


class StateBytes(NamedTuple):
    """Bytes of one rank's model states per model parameter, on its device and on its host."""

    device: float
    host: float


def paper_states(strategy: Strategy, measurement: Measurement) -> StateBytes:
    """Return the papers' bytes per parameter of what was measured under ``strategy``."""
    half = measurement.settings["dtype"] != "float32"
    return paper_bytes_per_parameter(
        strategy, measurement.cell.world_size, HALF_BYTES if half else FULL_BYTES
    )


def paper_bytes_per_parameter(
    strategy: Strategy, world_size: int, parameter_bytes: int
) -> StateBytes:
    """Return the bytes of one rank's parameters, gradients and optimizer states per model parameter.

    ``parameter_bytes`` is the size of a parameter in training: 4 or 2. FSDP2 shards as stage 3 does.
    Gradients go where the optimizer is. States on disk are not counted.
    """
    parameters = gradients = float(parameter_bytes)
    optimizer = float(MOMENTS_BYTES + (MASTER_BYTES if parameter_bytes < MASTER_BYTES else 0))
    stage = 3 if strategy.distributed_type == "FSDP" else strategy.zero_stage
    if stage >= 1:
        optimizer /= world_size
    if stage >= 2:
        gradients /= world_size
    if stage >= 3:
        parameters /= world_size
    placed = (
        (strategy.offload_param, parameters),
        (strategy.offload_optimizer, gradients + optimizer),
    )
    return StateBytes(
        device=sum(size for place, size in placed if place == "none"),
        host=sum(size for place, size in placed if place == "cpu"),
    )
