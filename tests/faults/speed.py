"""Faults of speed that need no clock to be seen: there is more to do."""

from __future__ import annotations

from functools import partial

from tests.faults.fault import around, fault

speed = partial(fault, family="speed")

TIME_ALONE = {
    "sleep_of_ten_percent": ("deepspeedai/DeepSpeed#7499", "each step waits a tenth of its time"),
    "only_ddp_slowed": ("pytorch/pytorch#127077", "DDP alone waits, so every speedup rises"),
    "slow_initialisation": ("huggingface/accelerate#2914", "set-up waits before training"),
}
"""Only a clock sees these; here they would be noise. Name: the bug, and what goes wrong."""


@speed("deepspeedai/DeepSpeed#7882", caught_by="operators", on="zero2", spares="zero3")
def work_in_every_gradient_hook() -> None:
    """Each gradient's hook goes through all parameters."""
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    def patch(original, self, *arguments):
        for group in self.bit16_groups:
            for parameter in group:
                parameter.detach()
        return original(self, *arguments)

    around(DeepSpeedZeroOptimizer, "reduce_independent_p_g_buckets_and_remove_grads", patch)


@speed("deepspeedai/DeepSpeed#7804", caught_by="other_collective_calls", on="zero2", spares="zero3")
def synchronising_after_each_bucket() -> None:
    """Ranks wait for each other after every gradient bucket."""
    import torch.distributed as dist
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    def patch(original, *arguments):
        original(*arguments)
        dist.barrier()

    around(DeepSpeedZeroOptimizer, "average_tensor", patch)


@speed("pytorch/pytorch#180500", caught_by="all_reduce_calls", on="ddp", spares="zero2")
def smaller_ddp_buckets() -> None:
    """DDP reduces gradients in many small buckets."""
    from torch.nn.parallel import DistributedDataParallel

    def patch(original, *arguments, **options):
        original(*arguments, **{**options, "bucket_cap_mb": 1})

    around(DistributedDataParallel, "__init__", patch)


@speed("deepspeedai/DeepSpeed#5844", caught_by="all_gather_calls", on="zero3", spares="zero2")
def one_more_all_gather_a_step() -> None:
    """Every step gathers one parameter that nobody needs."""
    import torch
    import torch.distributed as dist
    from deepspeed.accelerator import get_accelerator
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3

    def patch(original, self, *arguments, **options):
        device = get_accelerator().current_device_name()
        own = torch.zeros(1, device=device)
        dist.all_gather_into_tensor(torch.zeros(dist.get_world_size(), device=device), own)
        return original(self, *arguments, **options)

    around(DeepSpeedZeroOptimizer_Stage3, "step", patch)


@speed("deepspeedai/DeepSpeed#1069", caught_by="all_gather_calls", on="zero3", spares="zero2")
def no_prefetch() -> None:
    """Parameters are gathered one by one, when they are needed."""
    from deepspeed.runtime.zero.partitioned_param_coordinator import (
        PartitionedParameterCoordinator,
    )

    def patch(original, self, *arguments, **options):
        original(self, *arguments, **options)
        self._PartitionedParameterCoordinator__prefetch_bucket_sz = 0

    around(PartitionedParameterCoordinator, "__init__", patch)


@speed("huggingface/accelerate#2634", caught_by="flops", on="ddp zero2")
def forward_twice() -> None:
    """The loss is computed twice, and the first result is not used."""
    from transformers import GPT2LMHeadModel

    def patch(original, self, *arguments, **options):
        original(self, *arguments, **options)
        return original(self, *arguments, **options)

    around(GPT2LMHeadModel, "forward", patch)


@speed("deepspeedai/DeepSpeed#2263", caught_by="disk_read_bytes", on="zero3_nvme", spares="zero3")
def swapped_in_twice() -> None:
    """Each optimizer state is read from disk twice."""
    from deepspeed.runtime.swap_tensor import partitioned_optimizer_swapper as swapper

    def patch(original, handle, buffers, paths):
        original(handle, buffers, paths)
        handle.wait()
        return original(handle, buffers, paths)

    around(swapper, "swap_in_tensors", patch)
