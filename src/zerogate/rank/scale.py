"""The cpu tier's one change to a strategy: DeepSpeed's sizes shrink as the model did.

A scale model is only one if everything measured in elements shrinks with it. With DeepSpeed's
default buckets (500 million elements) a model of 5 million parameters would hold 2 GB of buckets
and ZeRO would need more memory than DDP.
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

# DeepSpeed asserts that bucket sizes are multiples of its own alignment, 2 on most backends.
ALIGNMENT = 8


def scale_deepspeed(
    config: Mapping[str, Any], *, ratio: float, largest_parameter: int, scratch_folder: str
) -> dict[str, Any]:
    """``config`` for a scale model with ``ratio`` = its parameters / the full model's.

    Sizes in elements are multiplied by ``ratio``; ``auto`` stays, since Accelerate derives it from
    the scale model's own hidden size. Half precision goes (DeepSpeed refuses fp16 on CPU), pinned
    memory goes (nothing to copy to), and disk offload gets the launch's own folder and buffers
    that hold the largest parameter (``largest_parameter`` elements).
    """
    scaled = {name: value for name, value in config.items() if name not in ("fp16", "bf16", "amp")}
    zero = dict(scaled.get("zero_optimization", {}))
    for name, default in DEFAULT_ELEMENTS.items():
        if name.startswith("stage3_") and zero.get("stage") != 3:
            continue
        value = zero.get(name, default)
        if value != "auto":
            zero[name] = ALIGNMENT * max(1, round(float(value) * ratio / ALIGNMENT))
    for name in ("offload_optimizer", "offload_param"):
        if name in zero:
            zero[name] = _scale_offload(zero[name], ratio, largest_parameter, scratch_folder)
    scaled["zero_optimization"] = zero
    return scaled


def _scale_offload(
    section: Mapping[str, Any], ratio: float, largest_parameter: int, scratch_folder: str
) -> dict[str, Any]:
    scaled = {**section}
    if "pin_memory" in scaled or scaled.get("device") in ("cpu", "nvme"):
        scaled["pin_memory"] = False
    if scaled.get("device") == "nvme":
        scaled["nvme_path"] = scratch_folder
        if "buffer_size" in scaled:  # Parameters have such buffers, optimizer states do not.
            size = round(float(scaled["buffer_size"]) * ratio)
            scaled["buffer_size"] = max(size, largest_parameter)
    return scaled


def scale_bytes(full_bytes: int, *, ratio: float) -> int:
    """A memory budget of the full cell, for its scale model."""
    return round(full_bytes * ratio)
