"""Strategies: what a strategy file requests of the engine, and what it needs of the machine.

The file is an unchanged Accelerate config; Accelerate itself parses it in the ranks. It is read
here a second time, to compare what it requests with what the engine reports.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from zerogate.config.strategy_file import read_accelerate_config, read_deepspeed_config
from zerogate.protocol.cell import Cell, Tier

if TYPE_CHECKING:
    from zerogate.config.strategy_schema import Optimizer

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
        """Return whether ranks hold parts of the model states instead of copies."""
        return self.zero_stage > 0 or self.distributed_type == "FSDP"

    @property
    def offloads(self) -> bool:
        """Return whether optimizer states or parameters leave the device for the host or the disk."""
        return any(place != "none" for place in self._places)

    def offloads_more_than(self, other: Strategy) -> bool:
        """Return whether it offloads as ``other`` does or further away, and something further away."""
        from zerogate.config.strategy_schema import Offload

        order = get_args(Offload)
        ours, theirs = ([order.index(place) for place in one._places] for one in (self, other))
        return ours != theirs and all(a >= b for a, b in zip(ours, theirs, strict=True))

    @property
    def _places(self) -> tuple[str, str]:
        return self.offload_optimizer, self.offload_param

    @property
    def uses_disk(self) -> bool:
        return "nvme" in self._places

    @property
    def ops(self) -> tuple[str, ...]:
        """Return DeepSpeed's compiled ops that ranks load, by the names of their builders."""
        if not self.is_deepspeed:
            return ()
        ops = []
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
        if self.distributed_type == "MULTI_GPU" and cell.world_size == 1:
            engine = BARE_MODEL
        # Under DeepSpeed the engine's dtype shows it, since DeepSpeed's own file may set it.
        autocast = (
            {} if self.is_deepspeed else {"mixed_precision": precision or self.mixed_precision}
        )
        return autocast | {
            "world_size": cell.world_size,
            "num_processes": cell.world_size,
            "distributed_type": self.distributed_type,
            "engine": engine,
            "dtype": self._dtype(cell.tier, precision or self.mixed_precision),
            "zero_stage": self.zero_stage,
            "offload_optimizer": self.offload_optimizer,
            "offload_param": self.offload_param,
            "optimizer": self.optimizer,
        }

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
    plugin = config.deepspeed_config
    precision: str = config.mixed_precision
    if config.distributed_type == "FSDP" and config.fsdp_config.offloads:
        # The shards of parameters and gradients are on the host, so the optimizer steps there.
        return replace(
            _strategy(path, "FSDP", precision), offload_optimizer="cpu", offload_param="cpu"
        )
    if config.distributed_type != "DEEPSPEED":
        return _strategy(path, config.distributed_type, precision)
    if plugin.deepspeed_config_file is None:
        assert plugin.zero_stage is not None  # The schema sees to that.
        return replace(
            _strategy(path, "DEEPSPEED", precision),
            zero_stage=plugin.zero_stage,
            offload_optimizer=plugin.offload_optimizer_device,
            offload_param=plugin.offload_param_device,
            optimizer=_optimizer(None, plugin.offload_optimizer_device),
        )
    # Accelerate opens it relative to the working directory; here it is relative to the project.
    file = path.parent.parent / plugin.deepspeed_config_file
    own = read_deepspeed_config(file, named_by=path)
    zero = own.zero_optimization
    return replace(
        _strategy(path, "DEEPSPEED", own.precision or precision),
        precision_in_deepspeed_file=own.precision is not None,
        zero_stage=zero.stage,
        offload_optimizer=zero.offload_optimizer.device,
        offload_param=zero.offload_param.device,
        optimizer=_optimizer(own.optimizer, zero.offload_optimizer.device),
    )


def _strategy(path: Path, distributed_type: str, mixed_precision: str) -> Strategy:
    """Return a strategy without DeepSpeed."""
    return Strategy(
        name=path.stem,
        path=path,
        distributed_type=distributed_type,
        mixed_precision=mixed_precision,
        zero_stage=0,
        offload_optimizer="none",
        offload_param="none",
        optimizer="AdamW",
    )


def _optimizer(declared: Optimizer | None, offload_optimizer: str) -> str:
    """Return the optimizer class that Accelerate and DeepSpeed make of the recipe's AdamW.

    ``declared`` is the DeepSpeed file's optimizer, if it has one.
    """
    if declared is not None and declared.params.get("torch_adam", False):
        return "AdamW"
    if offload_optimizer != "none":
        return "DeepSpeedCPUAdam"
    return "AdamW" if declared is None else "FusedAdam"
