"""Faults of offload: something is not where it should be, or crosses when it need not."""

from __future__ import annotations

from functools import partial

from tests.faults.configuration import before_deepspeed
from tests.faults.fault import MIXED_DEVICES, around, fault

offload = partial(fault, family="offload")


@offload(
    "deepspeedai/DeepSpeed#467",
    caught_by="model_state_bytes_offloaded",
    on="zero2_offload",
    spares="zero2",
)
def optimizer_stays_on_device() -> None:
    """The fp32 weights and both moments of the offloaded optimizer have twins on the device."""
    from deepspeed.accelerator import get_accelerator
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    def patch(original, self, *arguments, **options):
        original(self, *arguments, **options)
        if self.cpu_offload:
            device = get_accelerator().current_device_name()
            twins = [[group] * 3 for group in self.single_partition_of_fp32_groups]
            self.on_device = [[one.to(device) for one in states] for states in twins]

    around(DeepSpeedZeroOptimizer, "__init__", patch)


@offload(
    "pytorch/pytorch#144397",
    caught_by="model_state_bytes_offloaded",
    on="fsdp2_offload",
    spares="fsdp2",
)
def layers_stay_on_device() -> None:
    """The shards of the transformer's layers stay on the device; only the others are offloaded."""
    from torch.distributed import fsdp
    from transformers.models.gpt2.modeling_gpt2 import GPT2Block

    def patch(original, module, **options):
        if isinstance(module, GPT2Block):
            options.pop("offload_policy", None)
        return original(module, **options)

    around(fsdp, "fully_shard", patch)


@offload(
    "deepspeedai/DeepSpeed#6557",
    caught_by="copied_to_device_bytes",
    on="zero3_offload",
    spares="zero2_offload",
)
def parameters_fetched_twice() -> None:
    """Each partition is copied to the device twice before it is gathered."""
    from deepspeed.accelerator import get_accelerator
    from deepspeed.runtime.zero.partitioned_param_coordinator import (
        PartitionedParameterCoordinator,
        ZeroParamStatus,
    )

    def patch(original, self, params, *arguments, **options):
        for parameter in params:
            if parameter.ds_status == ZeroParamStatus.NOT_AVAILABLE:
                parameter.ds_tensor.to(get_accelerator().current_device_name())
        return original(self, params, *arguments, **options)

    around(
        PartitionedParameterCoordinator,
        "_PartitionedParameterCoordinator__all_gather_params_",
        patch,
    )


@offload(
    "pytorch/pytorch#106029", caught_by="pinned_pool_bytes", on="fsdp2_offload", spares="fsdp2"
)
def pinned_gradients_kept() -> None:
    """The pinned buffers that gradients are copied to are not released after the step."""
    from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup

    def patch(original, self):
        original(self)
        offloaded = [one.sharded_param for one in self.fsdp_params if one.offload_to_cpu]
        gradients = [one.grad for one in offloaded]
        self.kept = [one.to_local() for one in gradients if one is not None]

    around(FSDPParamGroup, "finalize_backward", patch)


@offload(
    "deepspeedai/DeepSpeed#8256",
    caught_by="host_pool_bytes",
    on="zero2_offload",
    spares="zero2",
)
def pageable_copy_kept() -> None:
    """What was pinned stays in pageable memory too."""
    import torch

    kept = []

    def patch(original, tensor, *arguments, **options):
        kept.append(tensor)
        return original(tensor, *arguments, **options)

    around(torch.Tensor, "pin_memory", patch)


@offload(
    "deepspeedai/DeepSpeed#4113",
    caught_by="copied_to_host_bytes",
    on="zero3_offload",
    spares="zero2_offload",
)
def gradients_cross_once_more() -> None:
    """Each gradient makes a trip to the host and back before it is offloaded."""
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3

    def patch(original, self, parameters, partitions):
        return original(self, parameters, [one.cpu().to(one.device) for one in partitions])

    around(DeepSpeedZeroOptimizer_Stage3, "partition_grads", patch)


@offload(
    "deepspeedai/DeepSpeed#5115", caught_by="host_waits", on="zero2_offload zero2", spares="zero3"
)
def item_in_a_gradient_hook() -> None:
    """Each gradient's hook asks whether the gradient is finite, and waits for the answer."""
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    def patch(original, self, parameter, *arguments):
        assert self.get_gradient_for_reduction(parameter).sum().isfinite().item()
        return original(self, parameter, *arguments)

    around(DeepSpeedZeroOptimizer, "reduce_independent_p_g_buckets_and_remove_grads", patch)


@offload(
    "pytorch/pytorch#120256", caught_by="peak_host_pool_bytes", on="fsdp2_offload", spares="fsdp2"
)
def gradients_copied_one_by_one() -> None:
    """Each gradient is copied into pageable memory and waited for, as if a hook were to read it."""
    from torch.distributed.fsdp._fully_shard._fsdp_param import FSDPParam

    def patch(original, self, *arguments, **options):
        original(self, *arguments, **options)
        self.sharded_param.register_post_accumulate_grad_hook(lambda parameter: None)

    around(FSDPParam, "__init__", patch)


@offload("deepspeedai/DeepSpeed#5538", caught_by=MIXED_DEVICES, on="zero3_offload", spares="zero3")
def norm_on_another_device() -> None:
    """Gradients on the host are clipped by a norm on the device."""
    from deepspeed.accelerator import get_accelerator
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3

    def patch(original, self, parameters):
        return original(self, parameters).to(get_accelerator().current_device_name())

    around(DeepSpeedZeroOptimizer_Stage3, "complete_grad_norm_calculation_for_cpu_offload", patch)


@offload(
    "modelscope/ms-swift#7821",
    caught_by="copied_to_device_bytes",
    on="zero2_offload",
    spares="zero2",
)
def moments_return_every_step() -> None:
    """The optimizer's moments are copied back to the device after each step."""
    from deepspeed.accelerator import get_accelerator
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    def patch(original, self, *arguments, **options):
        move(self, "cpu")
        result = original(self, *arguments, **options)
        move(self, get_accelerator().current_device_name())
        return result

    def move(optimizer, device):
        for state in optimizer.state.values():
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = state[name].to(device)

    around(DeepSpeedCPUAdam, "step", patch)


@offload(
    "modelscope/ms-swift#7844",
    caught_by="host_leak_bytes_per_step",
    on="zero2_offload zero3_offload",
    spares="ddp",
)
def host_grows_every_step() -> None:
    """The engine keeps a copy of each step's gradient norm on the host: a few bytes."""
    import torch
    from deepspeed.runtime.engine import DeepSpeedEngine

    norms = []

    def patch(original, self, *arguments, **options):
        found = original(self, *arguments, **options)
        norms.append(torch.tensor(float(self.get_global_grad_norm() or 0.0)))
        return found

    around(DeepSpeedEngine, "step", patch)


@offload("deepspeedai/DeepSpeed#8207", caught_by="host_waits", on="zero2_offload", spares="zero2")
def nothing_is_pinned() -> None:
    """Buffers on the host are not pinned although they should be: copies wait."""

    def change(config) -> None:
        found = config["zero_optimization"].get("offload_optimizer")
        if found:
            found["pin_memory"] = False

    before_deepspeed(change)
