"""The cpu tier's change to a DeepSpeed config: sizes shrink as much as the model.

Sizes that the config leaves out are DeepSpeed's defaults, and shrink too. ``place_on_disk`` serves both
tiers.

Everything that is measured in elements must shrink with the model. With DeepSpeed's default buckets
(500 million elements) a model of 3 million parameters would hold 2 GB of buckets, and ZeRO would
need more memory than DDP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# DeepSpeed's defaults, in elements (deepspeed/runtime/zero/config.py).
DEFAULT_ELEMENTS = {
    "reduce_bucket_size": 500_000_000,
    "allgather_bucket_size": 500_000_000,
    "stage3_prefetch_bucket_size": 50_000_000,
    "stage3_param_persistence_threshold": 100_000,
    "stage3_max_live_parameters": 1_000_000_000,
    "stage3_max_reuse_distance": 1_000_000_000,
    "sub_group_size": 1_000_000_000,
}

DEFAULT_BUFFER_ELEMENTS = 100_000_000
"""Default of each ``offload_param`` buffer in DeepSpeed (deepspeed/runtime/zero/offload_config.py)."""

# DeepSpeed asserts that bucket sizes are multiples of its own alignment, 2 on most backends.
ALIGNMENT = 8


def scale_deepspeed(
    config: Mapping[str, Any], *, ratio: float, largest_parameter: int, scratch_folder: str
) -> dict[str, Any]:
    """Return ``config`` for a scale model; ``ratio`` = its parameters / the full model's.

    Sizes in elements are multiplied by ``ratio``. ``auto`` stays, since Accelerate derives it from
    the scale model's own hidden size. Half precision is removed: the cpu tier trains in fp32.
    ``place_on_disk`` sets up disk offload; ``largest_parameter`` is in elements.
    """
    scaled = {name: value for name, value in config.items() if name not in ("fp16", "bf16", "amp")}
    zero = dict(scaled.get("zero_optimization", {}))
    for name, default in DEFAULT_ELEMENTS.items():
        if name.startswith("stage3_") and zero.get("stage") != 3:
            continue
        value = zero.get(name, default)
        if value != "auto":
            zero[name] = ALIGNMENT * max(1, round(float(value) * ratio / ALIGNMENT))
    scaled["zero_optimization"] = zero
    return place_on_disk(scaled, largest=largest_parameter, folder=scratch_folder, ratio=ratio)


def place_on_disk(
    config: Mapping[str, Any], *, largest: int, folder: str, ratio: float = 1.0
) -> dict[str, Any]:
    """Return ``config`` with its disk offload, if any, in ``folder``.

    Parameter buffers are multiplied by ``ratio``, but have at least ``largest`` elements: DeepSpeed
    fails on a parameter that does not fit into one.
    """
    zero = dict(config.get("zero_optimization", {}))
    for name in ("offload_optimizer", "offload_param"):
        if zero.get(name, {}).get("device") == "nvme":
            zero[name] = {**zero[name], "nvme_path": folder}
            if name == "offload_param":  # Optimizer states have no such buffers.
                size = round(float(zero[name].get("buffer_size", DEFAULT_BUFFER_ELEMENTS)) * ratio)
                zero[name]["buffer_size"] = max(size, largest)
    return {**config, "zero_optimization": zero}


def scale_bytes(full_bytes: int, *, ratio: float) -> int:
    """Return the memory budget of a scale model: ``ratio`` of the full cell's."""
    return round(full_bytes * ratio)
