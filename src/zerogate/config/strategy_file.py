"""The user's config files, read and checked: an Accelerate YAML, a DeepSpeed JSON.

A typo is found here, before any launch; the error is one line with file, key and remedy.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from zerogate.config.text import one_line

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

# Options of ``accelerate launch`` for DeepSpeed, as they stand in its config files.
DEEPSPEED_KEYS = frozenset(
    {
        *("deepspeed_config_file", "zero_stage", "offload_optimizer_device"),
        *("offload_param_device", "offload_optimizer_nvme_path", "offload_param_nvme_path"),
        *("gradient_accumulation_steps", "gradient_clipping", "zero3_init_flag"),
        *("zero3_save_16bit_model", "deepspeed_hostfile", "deepspeed_exclusion_filter"),
        *("deepspeed_inclusion_filter", "deepspeed_multinode_launcher"),
        "deepspeed_moe_layer_cls_names",
    }
)

# Options of ``accelerate launch`` for FSDP; the file may leave ``fsdp_`` out.
FSDP_KEYS = frozenset(
    {
        *("fsdp_version", "fsdp_offload_params", "fsdp_min_num_params", "fsdp_sharding_strategy"),
        *("fsdp_reshard_after_forward", "fsdp_auto_wrap_policy"),
        *("fsdp_transformer_layer_cls_to_wrap", "fsdp_backward_prefetch"),
        *("fsdp_state_dict_type", "fsdp_forward_prefetch", "fsdp_use_orig_params"),
        *("fsdp_cpu_ram_efficient_loading", "fsdp_sync_module_states"),
        *("fsdp_activation_checkpointing", "fsdp_activation_checkpointing_offload"),
    }
)

# Keys that change what ranks do, but that no launcher here passes on to them. Accelerate writes
# most of them with empty values, which have no effect.
NOT_LAUNCHED = frozenset(
    {
        *("parallelism_config", "megatron_lm_config", "mpirun_config", "fp8_config"),
        *("command_file", "commands", "tpu_name", "tpu_zone", "tpu_use_cluster", "tpu_vm"),
        *("tpu_use_sudo", "tpu_env", "main_process_ip"),
    }
)

DISTRIBUTED_TYPES = ("MULTI_GPU", "DEEPSPEED", "FSDP")

PRECISIONS = ("no", "fp16", "bf16")

DECIDED_BY_RECIPE = (
    *("gradient_accumulation_steps", "train_micro_batch_size_per_gpu", "train_batch_size"),
)

OFFLOAD_DEVICES = ("none", "cpu", "nvme")


class ConfigError(ValueError):
    """A file or an option of the user's that is wrong; the message names file, key and remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def read_accelerate_config(path: Path) -> Mapping[str, Any]:
    """Return a strategy file as a mapping.

    Raises ConfigError unless its keys are known, its ``distributed_type`` is supported, its
    sections are mappings, and its DeepSpeed plugin fields are valid.
    """
    config = _read_yaml(path)
    _check_keys(path, "", config, ACCELERATE_KEYS)
    kind = config.get("distributed_type")
    if kind not in DISTRIBUTED_TYPES:
        raise ConfigError(
            f"{path}: distributed_type: {_short(kind)} is not supported; expected one of "
            f"{', '.join(DISTRIBUTED_TYPES)}"
        )
    for name in sorted(NOT_LAUNCHED & config.keys()):
        if config[name]:
            raise ConfigError(f"{path}: {name}: no launcher here passes it to ranks; remove it")
    if config.get("num_machines", 1) != 1:
        raise ConfigError(f"{path}: num_machines: {config['num_machines']!r}; expected 1")
    _check_rest(path, config)
    deepspeed = _section(path, config, "deepspeed_config")
    fsdp = _section(path, config, "fsdp_config")
    _check_keys(path, "deepspeed_config.", deepspeed, DEEPSPEED_KEYS)
    _check_keys(path, "fsdp_config.", fsdp, FSDP_KEYS)
    if kind == "FSDP" and fsdp.get("fsdp_version") != 2:
        found = fsdp.get("fsdp_version")
        raise ConfigError(f"{path}: fsdp_config.fsdp_version: {found!r}; expected 2")
    if kind == "DEEPSPEED" and "deepspeed_config_file" not in deepspeed:
        _check_stage(path, "deepspeed_config.zero_stage", deepspeed.get("zero_stage"))
        for name in ("offload_optimizer_device", "offload_param_device"):
            _check_device(path, f"deepspeed_config.{name}", deepspeed.get(name, "none"))
        _check_offload_param(
            path,
            "deepspeed_config.offload_param_device",
            deepspeed["zero_stage"],
            deepspeed.get("offload_param_device", "none"),
        )
    return config


def read_deepspeed_config(path: Path, *, named_by: Path) -> Mapping[str, Any]:
    """Return a DeepSpeed config file as a mapping whose sections are mappings. Raises ConfigError.

    ``named_by`` is the strategy file that names it.
    """
    try:
        config = json.loads(path.read_text())
    except RecursionError:
        raise ConfigError(f"{path}: file: nested too deeply; expected a DeepSpeed config") from None
    except OSError as error:
        raise ConfigError(
            f"{named_by}: deepspeed_config.deepspeed_config_file: cannot read {path} "
            f"({error.strerror}); expected a DeepSpeed config, relative to the folder above the "
            "strategy's"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: file: not UTF-8; expected a DeepSpeed config") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: line {error.lineno}: {error.msg}; expected JSON") from None
    except ValueError as error:  # A path or a number that Python does not take.
        raise ConfigError(f"{path}: file: {_key(error)}; expected a DeepSpeed config") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: file: not an object; expected a DeepSpeed config")
    for name in ("fp16", "bf16", "optimizer", "scheduler", "zero_optimization", "aio"):
        _section(path, config, name)
    _section(path, _section(path, config, "optimizer"), "params", prefix="optimizer.")
    zero = _section(path, config, "zero_optimization")
    _check_stage(path, "zero_optimization.stage", zero.get("stage"))
    for name in ("offload_optimizer", "offload_param"):
        section = _section(path, zero, name, prefix="zero_optimization.")
        _check_device(path, f"zero_optimization.{name}.device", section.get("device", "none"))
        if name == "offload_param":
            device = section.get("device", "none")
            _check_offload_param(path, f"zero_optimization.{name}.device", zero["stage"], device)
    for name in DECIDED_BY_RECIPE:
        if config.get(name, "auto") != "auto":
            raise ConfigError(f'{path}: {name}: decided by the workload\'s recipe; expected "auto"')
    return config


def _check_rest(path: Path, config: Mapping[str, Any]) -> None:
    """Raise ConfigError for values that Accelerate accepts but ranks would not train by."""
    precision = config.get("mixed_precision") or "no"
    if precision not in PRECISIONS:
        raise ConfigError(
            f"{path}: mixed_precision: {_short(precision)}; expected {', '.join(PRECISIONS)}"
        )
    if config.get("machine_rank") not in (None, 0):
        raise ConfigError(f"{path}: machine_rank: {_short(config['machine_rank'])}; expected 0")
    if config.get("use_cpu") not in (None, False):
        raise ConfigError(f"{path}: use_cpu: decided by the cell's tier; remove it")
    for name, kind in (("deepspeed_config", "DEEPSPEED"), ("fsdp_config", "FSDP")):
        if config.get(name) and config["distributed_type"] != kind:
            raise ConfigError(
                f"{path}: {name}: only read with distributed_type {kind}; remove it, or change "
                "distributed_type"
            )


def _short(value: Any) -> str:
    """Return a value as it was given, on one line, cut if it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        config = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"{path}: file: {error.strerror}; expected an Accelerate config"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: file: not UTF-8; expected an Accelerate config") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "file"
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigError(f"{path}: {where}: {problem}; expected an Accelerate config") from None
    except RecursionError:
        raise ConfigError(
            f"{path}: file: nested too deeply; expected an Accelerate config"
        ) from None
    except (ValueError, OverflowError) as error:  # Dates and numbers that Python does not take.
        raise ConfigError(f"{path}: file: {_key(error)}; expected an Accelerate config") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: file: not a mapping; expected an Accelerate config")
    return config


def _check_keys(path: Path, prefix: str, config: Mapping[str, Any], known: frozenset[str]) -> None:
    for name in config:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "remove it"
            raise ConfigError(
                f"{path}: {prefix}{_key(name)}: not a key of an Accelerate config; {hint}"
            )


def _key(name: Any) -> str:
    """Return a key on one line."""
    text = str(name)
    return text if text.isprintable() and len(text) <= 60 else _short(text)


def _section(
    path: Path, config: Mapping[str, Any], name: str, *, prefix: str = ""
) -> Mapping[str, Any]:
    section = config.get(name)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise ConfigError(f"{path}: {prefix}{name}: {_short(section)}; expected a mapping")
    return section


def _check_stage(path: Path, name: str, stage: Any) -> None:
    if stage not in (1, 2, 3) or isinstance(stage, bool):
        raise ConfigError(f"{path}: {name}: {_short(stage)}; expected 1, 2 or 3")


def _check_offload_param(path: Path, name: str, stage: int, device: str) -> None:
    if device != "none" and stage != 3:
        raise ConfigError(
            f"{path}: {name}: {device!r} needs ZeRO stage 3, this is {stage}; remove it"
        )


def _check_device(path: Path, name: str, device: Any) -> None:
    if device not in OFFLOAD_DEVICES:
        raise ConfigError(
            f"{path}: {name}: {_short(device)}; expected {', '.join(OFFLOAD_DEVICES)}"
        )
