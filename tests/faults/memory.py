"""Faults of memory: something is held that should not be, or is larger than it should be."""

from __future__ import annotations

from functools import partial

from tests.faults.fault import around, fault

memory = partial(fault, family="memory")


@memory("deepspeedai/DeepSpeed#2629", caught_by="live_bytes", on="zero1", spares="zero3")
def kept_fp32_copy() -> None:
    """An extra fp32 copy of the rank's partition is kept."""
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    def patch(original, self, *arguments, **options):
        original(self, *arguments, **options)
        self.kept = [group.detach().clone() for group in self.single_partition_of_fp32_groups]

    around(DeepSpeedZeroOptimizer, "__init__", patch)


@memory("deepspeedai/DeepSpeed#2037", caught_by="live_bytes", on="zero2", spares="zero3")
def reduce_buckets_not_freed() -> None:
    """The buckets for reducing gradients are kept after the step."""
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    def patch(original, self):
        self.kept = [list(bucket.buffer) for bucket in self.ipg_buckets.values() if bucket.buffer]
        original(self)

    around(DeepSpeedZeroOptimizer, "_release_ipg_buffers", patch)


@memory("deepspeedai/DeepSpeed#2037", caught_by="peak_first_step_bytes", on="zero1", spares="zero3")
def doubled_bucket() -> None:
    """Gradients are reduced in buckets twice as large as requested."""
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    def patch(original, self, *arguments, reduce_bucket_size, **options):
        original(self, *arguments, reduce_bucket_size=2 * reduce_bucket_size, **options)

    around(DeepSpeedZeroOptimizer, "__init__", patch)


@memory("deepspeedai/DeepSpeed#3306", caught_by="leak_bytes_per_step", on="zero2", spares="zero3")
def leaked_bucket() -> None:
    """A reduced gradient bucket of each micro-batch is never released."""
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    leaked = []

    def patch(original, self, tensor, *arguments):
        leaked.append(tensor[:64].clone())
        return original(self, tensor, *arguments)

    around(DeepSpeedZeroOptimizer, "average_tensor", patch)


@memory(
    "deepspeedai/DeepSpeed#5643", caught_by="leak_bytes_per_step", on="zero1 zero3", spares="ddp"
)
def leak_of_one_tensor_a_step() -> None:
    """The engine keeps one number of each step as a tensor: four bytes."""
    import torch
    from deepspeed.runtime.engine import DeepSpeedEngine

    remembered = []

    def patch(original, self, *arguments, **options):
        remembered.append(torch.zeros(1, device=self.device))
        return original(self, *arguments, **options)

    around(DeepSpeedEngine, "step", patch)


@memory("deepspeedai/DeepSpeed#2637", caught_by="peak_allocated_bytes", on="zero3", spares="zero2")
def unreleased_gather() -> None:
    """Gathered parameters stay whole after their layer has run."""
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3

    def patch(original, self, *arguments, **options):
        original(self, *arguments, **options)
        for parameter in self.module.parameters():
            parameter.ds_persist = True

    around(DeepSpeedZeroOptimizer_Stage3, "__init__", patch)


@memory("pytorch/torchtitan#191", caught_by="peak_allocated_bytes", on="fsdp2", spares="zero2")
def no_reshard_after_forward() -> None:
    """FSDP2 keeps parameters gathered between forward and backward pass."""
    from torch.distributed import fsdp

    def patch(original, module, **options):
        return original(module, **{**options, "reshard_after_forward": False})

    around(fsdp, "fully_shard", patch)


@memory("huggingface/accelerate#3474", caught_by="live_bytes", on="fsdp2", spares="ddp")
def upcast_parameters() -> None:
    """Parameters are held a second time in a wider type."""
    from accelerate import accelerator

    def patch(original, *arguments, **options):
        model = original(*arguments, **options)
        model.upcast = [parameter.detach().double() for parameter in model.parameters()]
        return model

    around(accelerator, "fsdp2_prepare_model", patch)


@memory("huggingface/accelerate#1444", caught_by="peak_init_bytes", on="ddp zero2")
def one_rank_is_heavier() -> None:
    """Rank 1 holds a buffer that rank 0 does not."""
    import os

    import torch
    from accelerate import Accelerator

    held = []

    def patch(original, self, *arguments, **options):
        if os.environ["RANK"] == "1":
            held.append(torch.zeros(300_000, device=self.device))
        return original(self, *arguments, **options)

    around(Accelerator, "prepare", patch)


@memory("huggingface/transformers#35108", caught_by="peak_allocated_bytes", on="ddp zero3")
def logits_twice() -> None:
    """The model keeps a second copy of its logits."""
    from transformers import GPT2LMHeadModel

    def patch(original, self, *arguments, **options):
        found = original(self, *arguments, **options)
        self.copy_of_logits = found.logits.detach().clone()
        return found

    around(GPT2LMHeadModel, "forward", patch)


@memory("deepspeedai/DeepSpeed#5700", caught_by="host_pool_bytes", on="zero3_nvme", spares="zero2")
def swap_buffers_stay() -> None:
    """The host's buffers of the swap to disk are never given back."""
    import torch
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3

    def patch(original, self, *arguments, **options):
        if not hasattr(self, "kept_buffers"):
            self.kept_buffers = torch.zeros(50_000)
        return original(self, *arguments, **options)

    around(DeepSpeedZeroOptimizer_Stage3, "_optimizer_states_and_gradient_swap_out", patch)
