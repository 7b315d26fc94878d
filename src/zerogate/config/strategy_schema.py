"""Schemas of the user's files: an Accelerate config, and the DeepSpeed config that it may name.

pydantic checks them strictly. Keys that zerogate does not read are named here too, so that a typo is
found before anything is launched. Imported where a file is read: pydantic takes long to import.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

# Keys of Accelerate's config (accelerate.commands.config.config_args.ClusterConfig) that go to
# ``accelerate launch`` unread; a test holds them, and the sections' keys, to the installed release.
PASSED_ON = (
    "compute_environment", "debug", "gpu_ids", "main_process_port", "rdzv_backend", "same_network",
    "main_training_function", "enable_cpu_affinity", "downcast_bf16", "dynamo_config",
)  # fmt: skip

# Keys that change what ranks do, and that no launcher here carries to them. Accelerate writes most
# of them with empty values, which request nothing.
NOT_LAUNCHED = (
    "parallelism_config", "megatron_lm_config", "mpirun_config", "fp8_config", "command_file",
    "commands", "tpu_name", "tpu_zone", "tpu_use_cluster", "tpu_vm", "tpu_use_sudo", "tpu_env",
    "main_process_ip",
)  # fmt: skip

DEEPSPEED_PASSED_ON = (
    "gradient_clipping", "offload_optimizer_nvme_path", "offload_param_nvme_path", "zero3_init_flag",
    "zero3_save_16bit_model", "deepspeed_hostfile", "deepspeed_exclusion_filter",
    "deepspeed_inclusion_filter", "deepspeed_multinode_launcher", "deepspeed_moe_layer_cls_names",
)  # fmt: skip

FSDP_PASSED_ON = (
    "fsdp_min_num_params", "fsdp_sharding_strategy",
    "fsdp_reshard_after_forward", "fsdp_auto_wrap_policy", "fsdp_transformer_layer_cls_to_wrap",
    "fsdp_backward_prefetch", "fsdp_state_dict_type", "fsdp_forward_prefetch", "fsdp_use_orig_params",
    "fsdp_cpu_ram_efficient_loading", "fsdp_sync_module_states", "fsdp_activation_checkpointing",
    "fsdp_activation_checkpointing_offload",
)  # fmt: skip


def problem(key: str, text: str) -> PydanticCustomError:
    """Return an error about ``key`` that reads ``text``."""
    return PydanticCustomError("problem", "{text}", {"key": key, "text": text})


def _whole(value: Any) -> Any:
    """Refuse true and 1.0 where a whole number is expected: both equal 1."""
    return repr(value).lower() if isinstance(value, bool | float) else value


Offload = Literal["none", "cpu", "nvme"]
"""Places for offloaded states, the nearest first."""

Stage = Annotated[Literal[1, 2, 3], BeforeValidator(_whole)]
OrEmpty = BeforeValidator(lambda value: {} if value is None else value)


class Section(BaseModel):
    """A part of an Accelerate config. Its keys are its fields, and ``passed_on``."""

    model_config = ConfigDict(extra="allow", strict=True, validate_default=True)

    passed_on: ClassVar[tuple[str, ...]] = ()
    """Keys that are known and not read."""

    @classmethod
    def keys(cls) -> set[str]:
        """Return all keys that the part may have."""
        return {*cls.model_fields, *cls.passed_on}

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        """Find a typo before anything that follows from it."""
        known = cls.keys()
        for name in values if isinstance(values, dict) else ():
            if name not in known:
                close = difflib.get_close_matches(str(name), known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else "remove it"
                raise problem(str(name), f"not a key of an Accelerate config; {hint}")
        return values


class OpenSection(BaseModel):
    """A part of a DeepSpeed file, of which only some keys are read."""

    model_config = ConfigDict(extra="allow", strict=True, validate_default=True)


class DeepSpeedPlugin(Section):
    """An Accelerate config's ``deepspeed_config``."""

    passed_on = DEEPSPEED_PASSED_ON

    deepspeed_config_file: str | None = None
    zero_stage: Stage | None = None
    offload_optimizer_device: Offload = "none"
    offload_param_device: Offload = "none"
    gradient_accumulation_steps: Any = None


class FsdpPlugin(Section):
    """An Accelerate config's ``fsdp_config``."""

    passed_on = FSDP_PASSED_ON

    fsdp_version: Any = None
    fsdp_offload_params: Any = False

    @property
    def offloads(self) -> bool:
        """Return whether Accelerate makes FSDP offload, by what its ``str_to_bool`` takes for true."""
        return str(self.fsdp_offload_params).lower() in ("y", "yes", "t", "true", "on", "1")


class AccelerateConfig(Section):
    """An Accelerate config file."""

    passed_on = (*PASSED_ON, *NOT_LAUNCHED)

    distributed_type: Literal["MULTI_GPU", "DEEPSPEED", "FSDP"] = Field(default=None)  # type: ignore[arg-type]
    mixed_precision: Annotated[
        Literal["no", "fp16", "bf16"],
        BeforeValidator(lambda value: "no" if value in (None, False, "") else value),
    ] = "no"
    deepspeed_config: Annotated[DeepSpeedPlugin, OrEmpty] = Field(default_factory=DeepSpeedPlugin)
    fsdp_config: Annotated[FsdpPlugin, OrEmpty] = Field(default_factory=FsdpPlugin)
    num_processes: Any = None
    num_machines: Annotated[Literal[1], BeforeValidator(_whole)] = 1
    machine_rank: Annotated[Literal[0] | None, BeforeValidator(_whole)] = None
    use_cpu: Any = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse values that Accelerate would take and ranks would not train by."""
        for name in sorted(NOT_LAUNCHED):
            if (self.model_extra or {}).get(name):
                raise problem(name, "no launcher here passes it to ranks; remove it")
        if self.use_cpu not in (None, False):
            raise problem("use_cpu", "decided by the cell's tier; remove it")
        if "num_processes" in self.model_fields_set:
            raise problem(
                "num_processes", "decided by --world-size; remove it from the strategy file"
            )
        self._check_sections()
        return self

    def _check_sections(self) -> None:
        kind, deepspeed, fsdp = self.distributed_type, self.deepspeed_config, self.fsdp_config
        for name, own in (("deepspeed_config", "DEEPSPEED"), ("fsdp_config", "FSDP")):
            if getattr(self, name).model_fields_set and kind != own:
                raise problem(
                    name,
                    f"only read with distributed_type {own}; remove it, or change distributed_type",
                )
        if "gradient_accumulation_steps" in deepspeed.model_fields_set:
            raise problem(
                "deepspeed_config.gradient_accumulation_steps",
                "decided by the workload's recipe; remove it from the strategy file",
            )
        if kind == "FSDP" and fsdp.fsdp_version != 2:
            raise problem("fsdp_config.fsdp_version", f"{fsdp.fsdp_version!r}; expected 2")
        if kind == "DEEPSPEED" and deepspeed.deepspeed_config_file is None:
            if deepspeed.zero_stage is None:
                raise problem("deepspeed_config.zero_stage", "None; expected 1, 2 or 3")
            key = "deepspeed_config.offload_param_device"
            check_parameter_offload(key, deepspeed.zero_stage, deepspeed.offload_param_device)


class OffloadSection(OpenSection):
    """A DeepSpeed file's ``offload_optimizer`` or ``offload_param``."""

    device: Offload = "none"


class ZeroOptimization(OpenSection):
    """A DeepSpeed file's ``zero_optimization``."""

    stage: Stage = Field(default=None)  # type: ignore[arg-type]
    offload_optimizer: Annotated[OffloadSection, OrEmpty] = Field(default_factory=OffloadSection)
    offload_param: Annotated[OffloadSection, OrEmpty] = Field(default_factory=OffloadSection)


class Optimizer(OpenSection):
    """A DeepSpeed file's ``optimizer``."""

    params: Annotated[dict[str, Any], OrEmpty] = Field(default_factory=dict)


class DeepSpeedFile(OpenSection):
    """A DeepSpeed config file (JSON). Unknown keys pass: DeepSpeed itself reads them."""

    fp16: Annotated[dict[str, Any], OrEmpty] = Field(default_factory=dict)
    bf16: Annotated[dict[str, Any], OrEmpty] = Field(default_factory=dict)
    scheduler: Annotated[dict[str, Any], OrEmpty] = Field(default_factory=dict)
    aio: Annotated[dict[str, Any], OrEmpty] = Field(default_factory=dict)
    optimizer: Optimizer | None = None
    zero_optimization: Annotated[ZeroOptimization, OrEmpty] = Field(default=None)  # type: ignore[assignment]
    gradient_accumulation_steps: Any = "auto"
    train_micro_batch_size_per_gpu: Any = "auto"
    train_batch_size: Any = "auto"

    @model_validator(mode="after")
    def _check(self) -> Self:
        zero = self.zero_optimization
        key = "zero_optimization.offload_param.device"
        check_parameter_offload(key, zero.stage, zero.offload_param.device)
        for name in (
            "gradient_accumulation_steps", "train_micro_batch_size_per_gpu", "train_batch_size",
        ):  # fmt: skip
            if getattr(self, name) != "auto":
                raise problem(name, 'decided by the workload\'s recipe; expected "auto"')
        return self

    @property
    def precision(self) -> str | None:
        """The half precision that the file switches on; None where it switches on none."""
        for name, section in (("fp16", self.fp16), ("bf16", self.bf16)):
            if section.get("enabled") in (True, "true"):
                return name
        return None


def check_parameter_offload(key: str, stage: int, device: Offload) -> None:
    """Refuse parameter offload below ZeRO stage 3, which has no such thing."""
    if device != "none" and stage != 3:
        raise problem(key, f"{device!r} needs ZeRO stage 3, this is {stage}; remove it")
