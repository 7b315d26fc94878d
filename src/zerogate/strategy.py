"""A strategy file read: what a cell under it asks of the engine, and what it needs of the machine.

The file is an Accelerate config, verbatim; Accelerate itself parses it in the ranks. Here it is read
a second time, so that what was asked for can be compared with what the engine reports, and so that a
typo is found before anything is launched.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from zerogate.cell import Cell, Tier

# Accelerate's config keys (accelerate.commands.config.config_args.ClusterConfig and BaseConfig);
# a test holds them to the installed release.
ACCELERATE_KEYS = frozenset(
    {
        *("compute_environment", "distributed_type", "mixed_precision", "use_cpu", "debug"),
        *("num_processes", "machine_rank", "num_machines", "gpu_ids", "main_process_ip"),
        *("main_process_port", "rdzv_backend", "same_network", "main_training_function"),
        *("enable_cpu_affinity", "fp8_config", "deepspeed_config", "fsdp_config"),
        *("parallelism_config", "megatron_lm_config", "mpirun_config", "downcast_bf16"),
        *("tpu_name", "tpu_zone", "tpu_use_cluster", "tpu_use_sudo", "command_file", "commands"),
        *("tpu_vm", "tpu_env", "dynamo_config"),
    }
)

DISTRIBUTED_TYPES = ("MULTI_GPU", "DEEPSPEED", "FSDP")

# What the cell decides; in a strategy file it would contradict the cell's id.
DECIDED_BY_CELL = {
    "num_processes": "--world-size",
    "gradient_accumulation_steps": "the workload's recipe",
}


class ConfigError(ValueError):
    """A file of the user's that cannot be used; the message names file, key and remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """What a strategy file asks for. ``zero_stage`` is 0 without DeepSpeed; offload devices are
    ``none``, ``cpu`` or ``nvme``; ``mixed_precision`` is the file's, before the tier changes it.
    """

    name: str
    path: Path
    distributed_type: str
    mixed_precision: str
    zero_stage: int
    offload_optimizer: str
    offload_param: str
    optimizer: str
    fused_adam: bool

    @property
    def is_deepspeed(self) -> bool:
        return self.distributed_type == "DEEPSPEED"

    @property
    def uses_disk(self) -> bool:
        return "nvme" in (self.offload_optimizer, self.offload_param)

    def ops(self, tier: Tier) -> tuple[str, ...]:
        """DeepSpeed's compiled ops that ranks load under this strategy, by their builders' names."""
        if not self.is_deepspeed:
            return ()
        ops = ["deepspeed_shm_comm"] if tier == "cpu" else []
        if self.offload_optimizer != "none":
            ops.append("cpu_adam")
        elif self.fused_adam:
            ops.append("fused_adam")
        if self.uses_disk:
            ops.append("async_io")
        return tuple(ops)

    def requested(self, cell: Cell) -> dict[str, Any]:
        """What the ranks must find applied (``rank.applied``)."""
        return {
            "world_size": cell.world_size,
            "num_processes": cell.world_size,
            "distributed_type": self._distributed_type(cell.tier),
            "engine": {
                "DEEPSPEED": "DeepSpeedEngine",
                "FSDP": "FSDPModule",
                "MULTI_GPU": "DistributedDataParallel",
            }[self.distributed_type],
            "dtype": self._dtype(cell.tier),
            "zero_stage": self.zero_stage,
            "offload_optimizer": self.offload_optimizer,
            "offload_param": self.offload_param,
            "optimizer": self.optimizer,
        }

    def _distributed_type(self, tier: Tier) -> str:
        if tier == "cpu" and self.distributed_type == "MULTI_GPU":
            return "MULTI_CPU"
        return self.distributed_type

    def _dtype(self, tier: Tier) -> str:
        """Of the parameters the engine trains with: DeepSpeed casts the model, DDP and FSDP2 keep
        fp32 parameters and cast in forward.
        """
        if tier == "cpu" or not self.is_deepspeed:
            return "float32"
        return {"fp16": "float16", "bf16": "bfloat16"}.get(self.mixed_precision, "float32")


def strategy_names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


@functools.cache
def read_strategy(path: Path) -> Strategy:
    """Read ``configs/<name>.yaml`` and the DeepSpeed file that it names, if any.

    Raises ConfigError: one line, file, key, what is right.
    """
    config = _read_yaml(path)
    _check_keys(path, config, ACCELERATE_KEYS)
    kind = config.get("distributed_type")
    if kind not in DISTRIBUTED_TYPES:
        raise ConfigError(
            f"{path}: distributed_type: {kind!r} is not supported; expected one of "
            f"{', '.join(DISTRIBUTED_TYPES)}"
        )
    deepspeed = _section(path, config, "deepspeed_config")
    fsdp = _section(path, config, "fsdp_config")
    for name, who in DECIDED_BY_CELL.items():
        if name in config or name in deepspeed:
            raise ConfigError(f"{path}: {name}: decided by {who}; remove it from the strategy file")
    if kind == "FSDP" and fsdp.get("fsdp_version") != 2:
        raise ConfigError(
            f"{path}: fsdp_config.fsdp_version: {fsdp.get('fsdp_version')!r}; expected 2"
        )
    precision = str(config.get("mixed_precision") or "no")
    file = _read_deepspeed_file(path, deepspeed) if kind == "DEEPSPEED" else None
    zero = file["zero_optimization"] if file is not None else _plugin_fields(path, kind, deepspeed)
    if file is not None:
        precision = _file_precision(file) or precision
    offload_optimizer = _offload_device(path, zero, "offload_optimizer")
    declared = (file or {}).get("optimizer", {})
    return Strategy(
        name=path.stem,
        path=path,
        distributed_type=kind,
        mixed_precision=precision,
        zero_stage=zero["stage"],
        offload_optimizer=offload_optimizer,
        offload_param=_offload_device(path, zero, "offload_param"),
        # With the optimizer on the host Accelerate and DeepSpeed use DeepSpeed's CPU Adam.
        optimizer="DeepSpeedCPUAdam" if offload_optimizer != "none" else "AdamW",
        fused_adam=bool(declared) and not declared.get("params", {}).get("torch_adam", False),
    )


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        config = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "file"
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigError(f"{path}: {where}: {problem}; expected an Accelerate config") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: file: not a mapping; expected an Accelerate config")
    return config


def _check_keys(path: Path, config: Mapping[str, Any], known: frozenset[str]) -> None:
    import difflib

    for name in config:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "remove it"
            raise ConfigError(f"{path}: {name}: not a key of an Accelerate config; {hint}")


def _section(path: Path, config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name) or {}
    if not isinstance(section, dict):
        raise ConfigError(f"{path}: {name}: {section!r}; expected a mapping")
    return section


def _plugin_fields(path: Path, kind: str, deepspeed: Mapping[str, Any]) -> dict[str, Any]:
    """Accelerate's DeepSpeed plugin fields, in the form of DeepSpeed's zero_optimization."""
    if kind != "DEEPSPEED":
        return {"stage": 0}
    stage = deepspeed.get("zero_stage")
    if stage not in (1, 2, 3) or isinstance(stage, bool):
        raise ConfigError(f"{path}: deepspeed_config.zero_stage: {stage!r}; expected 1, 2 or 3")
    return {
        "stage": stage,
        "offload_optimizer": {"device": deepspeed.get("offload_optimizer_device", "none")},
        "offload_param": {"device": deepspeed.get("offload_param_device", "none")},
    }


def _read_deepspeed_file(path: Path, deepspeed: Mapping[str, Any]) -> dict[str, Any] | None:
    name = deepspeed.get("deepspeed_config_file")
    if name is None:
        return None
    # Accelerate opens it relative to where the user stands; we, to the folder above configs/.
    file = path.parent.parent / str(name)
    try:
        config = json.loads(file.read_text())
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: deepspeed_config.deepspeed_config_file: {name} does not exist; expected a "
            "DeepSpeed config, relative to the folder above the strategy's"
        ) from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file}: line {error.lineno}: {error.msg}; expected JSON") from None
    zero = config.get("zero_optimization") if isinstance(config, dict) else None
    if not isinstance(zero, dict) or zero.get("stage") not in (1, 2, 3):
        raise ConfigError(f"{file}: zero_optimization.stage: missing or not 1, 2 or 3")
    return dict(config)


def _file_precision(file: Mapping[str, Any]) -> str | None:
    for name in ("fp16", "bf16"):
        if file.get(name, {}).get("enabled") in (True, "true"):
            return name
    return None


def _offload_device(path: Path, zero: Mapping[str, Any], name: str) -> str:
    device = (zero.get(name) or {}).get("device", "none")
    if device not in ("none", "cpu", "nvme"):
        raise ConfigError(f"{path}: {name}: device {device!r}; expected none, cpu or nvme")
    return str(device)
