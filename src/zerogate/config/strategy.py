"""Strategies: what a strategy file requests of the engine, and what it needs of the machine.

The file is an unchanged Accelerate config; Accelerate itself parses it in the ranks. It is read
here a second time, to compare what it requests with what the engine reports.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerogate.config.strategy_file import (
    OFFLOAD_DEVICES,
    ConfigError,
    read_accelerate_config,
    read_deepspeed_config,
)
from zerogate.protocol.cell import Cell, Tier

# Keys that the cell decides; in a strategy file they could contradict the cell's id.
DECIDED_BY_CELL = {
    "num_processes": "--world-size",
    "gradient_accumulation_steps": "the workload's recipe",
}


BARE_MODEL = "none"
"""The engine of DDP on one card: there Accelerate does not wrap the model (its ``prepare_model``;
on CPU it always does)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """The requests of a strategy file. ``zero_stage`` is 0 without DeepSpeed. Offload devices are
    ``none``, ``cpu`` or ``nvme``. ``mixed_precision`` is the file's, before the tier changes it.
    """

    name: str
    path: Path
    distributed_type: str
    mixed_precision: str
    precision_in_deepspeed_file: bool = False
    zero_stage: int
    offload_optimizer: str
    offload_param: str
    optimizer: str

    @property
    def is_deepspeed(self) -> bool:
        return self.distributed_type == "DEEPSPEED"

    @property
    def shards(self) -> bool:
        """Whether ranks hold parts of the model states instead of copies."""
        return self.zero_stage > 0 or self.distributed_type == "FSDP"

    @property
    def offloads(self) -> bool:
        """Whether optimizer states or parameters leave the device for the host or the disk."""
        return any(place != "none" for place in self._places)

    def offloads_more_than(self, other: Strategy) -> bool:
        """Return whether it offloads as ``other`` does or further away, and something further away."""
        ours, theirs = (
            [OFFLOAD_DEVICES.index(place) for place in one._places] for one in (self, other)
        )
        return ours != theirs and all(a >= b for a, b in zip(ours, theirs, strict=True))

    @property
    def _places(self) -> tuple[str, str]:
        return self.offload_optimizer, self.offload_param

    @property
    def uses_disk(self) -> bool:
        return "nvme" in self._places

    def ops(self, tier: Tier) -> tuple[str, ...]:
        """Return DeepSpeed's compiled ops that ranks load, by the names of their builders."""
        if not self.is_deepspeed:
            return ()
        ops = ["deepspeed_shm_comm"] if tier == "cpu" else []
        if self.offload_optimizer != "none":
            ops.append("cpu_adam")
        elif self.optimizer == "FusedAdam":
            ops.append("fused_adam")
        if self.uses_disk:
            ops.append("async_io")
        return tuple(ops)

    def forced_precision(self, tier: Tier, *, has_bf16: bool) -> str | None:
        """Return the mixed precision that replaces the file's on this machine; None to keep it.

        A CPU trains in fp32 (DeepSpeed refuses fp16 there), and cards without bf16 in fp16. A
        precision that a DeepSpeed file sets cannot be changed from outside that file.
        """
        if tier == "cpu":
            return "no"
        older = self.mixed_precision == "bf16" and not has_bf16
        return "fp16" if older and not self.precision_in_deepspeed_file else None

    def requested(self, cell: Cell, precision: str | None = None) -> dict[str, Any]:
        """Return what the ranks must find in the engine (``worker.verify_config``).

        ``precision`` is the forced one; None means the file's.
        """
        engine = {
            "DEEPSPEED": "DeepSpeedEngine",
            "FSDP": "FSDPModule",
            "MULTI_GPU": "DistributedDataParallel",
        }[self.distributed_type]
        if self.distributed_type == "MULTI_GPU" and cell.tier == "gpu" and cell.world_size == 1:
            engine = BARE_MODEL
        # Under DeepSpeed the engine's dtype shows it, since DeepSpeed's own file may set it.
        autocast = (
            {} if self.is_deepspeed else {"mixed_precision": precision or self.mixed_precision}
        )
        return autocast | {
            "world_size": cell.world_size,
            "num_processes": cell.world_size,
            "distributed_type": self._distributed_type(cell.tier),
            "engine": engine,
            "dtype": self._dtype(cell.tier, precision or self.mixed_precision),
            "zero_stage": self.zero_stage,
            "offload_optimizer": self.offload_optimizer,
            "offload_param": self.offload_param,
            "optimizer": self.optimizer,
        }

    def _distributed_type(self, tier: Tier) -> str:
        if tier == "cpu" and self.distributed_type == "MULTI_GPU":
            return "MULTI_CPU"
        return self.distributed_type

    def _dtype(self, tier: Tier, precision: str) -> str:
        """Return the dtype of the parameters that the engine trains: DeepSpeed casts the model, DDP
        and FSDP2 keep fp32 parameters and cast in forward.
        """
        if tier == "cpu" or not self.is_deepspeed:
            return "float32"
        return {"fp16": "float16", "bf16": "bfloat16"}.get(precision, "float32")


@functools.cache
def read_strategy(path: Path) -> Strategy:
    """Read ``configs/<name>.yaml`` and the DeepSpeed file that it names, if any.

    Raises ConfigError: one line with the file, the key and what is expected.
    """
    config = read_accelerate_config(path)
    kind: str = config["distributed_type"]
    deepspeed = config.get("deepspeed_config") or {}
    for name, who in DECIDED_BY_CELL.items():
        if name in config or name in deepspeed:
            raise ConfigError(f"{path}: {name}: decided by {who}; remove it from the strategy file")
    precision = str(config.get("mixed_precision") or "no")
    zero: Mapping[str, Any] = _plugin_fields(deepspeed) if kind == "DEEPSPEED" else {"stage": 0}
    declared: Mapping[str, Any] = {}
    own_precision: str | None = None
    if kind == "DEEPSPEED" and "deepspeed_config_file" in deepspeed:
        # Accelerate opens it relative to the working directory; here it is relative to the project.
        file = path.parent.parent / str(deepspeed["deepspeed_config_file"])
        own = read_deepspeed_config(file, named_by=path)
        zero = own["zero_optimization"]
        declared = own.get("optimizer") or {}
        own_precision = _file_precision(own)
        precision = own_precision or precision
    offload_optimizer = _offload_device(zero, "offload_optimizer")
    return Strategy(
        name=path.stem,
        path=path,
        distributed_type=kind,
        mixed_precision=precision,
        precision_in_deepspeed_file=own_precision is not None,
        zero_stage=zero["stage"],
        offload_optimizer=offload_optimizer,
        offload_param=_offload_device(zero, "offload_param"),
        optimizer=_optimizer(declared, offload_optimizer),
    )


def _optimizer(declared: Mapping[str, Any], offload_optimizer: str) -> str:
    """Return the optimizer class that Accelerate and DeepSpeed make of the recipe's AdamW.

    ``declared`` is the DeepSpeed file's optimizer; empty if it has none.
    """
    if (declared.get("params") or {}).get("torch_adam", False):
        return "AdamW"
    if offload_optimizer != "none":
        return "DeepSpeedCPUAdam"
    return "FusedAdam" if declared else "AdamW"


def _plugin_fields(deepspeed: Mapping[str, Any]) -> dict[str, Any]:
    """Return Accelerate's DeepSpeed plugin fields in the form of DeepSpeed's zero_optimization."""
    return {
        "stage": deepspeed.get("zero_stage"),
        "offload_optimizer": {"device": deepspeed.get("offload_optimizer_device", "none")},
        "offload_param": {"device": deepspeed.get("offload_param_device", "none")},
    }


def _file_precision(file: Mapping[str, Any]) -> str | None:
    for name in ("fp16", "bf16"):
        if (file.get(name) or {}).get("enabled") in (True, "true"):
            return name
    return None


def _offload_device(zero: Mapping[str, Any], name: str) -> str:
    return str((zero.get(name) or {}).get("device", "none"))
