"""Faults that train with wrong numbers and say nothing."""

from __future__ import annotations

from functools import partial

from tests.faults.fault import around, fault

wrong = partial(fault, family="wrong numbers")


@wrong("deepspeedai/DeepSpeed#7718", caught_by="gradient_norm_parity", on="zero2", spares="zero3")
def gradients_scaled_by_world_size() -> None:
    """Gradients are divided by the number of ranks once more."""
    import torch.distributed as dist
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    def patch(original, self, tensor, *arguments):
        return original(self, tensor.div_(dist.get_world_size()), *arguments)

    around(DeepSpeedZeroOptimizer, "average_tensor", patch)


@wrong(
    "deepspeedai/DeepSpeed#7985",
    caught_by="gradient_norm_parity",
    on="zero1 zero3",
    spares="ddp",
)
def last_micro_batch_left_out() -> None:
    """The last micro-batch of a step does not reach the reduction."""
    from deepspeed.runtime.engine import DeepSpeedEngine

    def patch(original, self, loss, *arguments, **options):
        if self.is_gradient_accumulation_boundary():
            loss = loss * 0
        return original(self, loss, *arguments, **options)

    around(DeepSpeedEngine, "backward", patch)


@wrong(
    "deepspeedai/DeepSpeed#7981",
    caught_by="gradient_norm_parity",
    on="zero2_offload",
    spares="zero2",
)
def only_the_last_backward_kept() -> None:
    """Under offload, only the gradients of the last micro-batch are kept."""
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    def patch(original, self, parameter):
        if self.micro_step_id == 0:
            self.get_gradient_for_reduction(parameter).zero_()
        return original(self, parameter)

    around(DeepSpeedZeroOptimizer, "async_accumulate_grad_in_cpu_via_gpu", patch)


@wrong("deepspeedai/DeepSpeed#8224", caught_by="gradient_norm_parity", on="zero2", spares="ddp")
def tied_gradient_dropped() -> None:
    """One of the two gradients of a weight that is used twice in a step is lost."""
    from deepspeed.runtime.engine import DeepSpeedEngine
    from torch.nn.functional import linear

    def patch(original, self, *arguments, **options):
        original(self, *arguments, **options)
        head = self.module.lm_head
        head.forward = lambda hidden: linear(hidden, head.weight.detach())

    around(DeepSpeedEngine, "__init__", patch)


@wrong(
    "deepspeedai/DeepSpeed#5150", caught_by="gradient_norm_parity", on="zero1 zero2", spares="zero3"
)
def local_clipping() -> None:
    """Each rank clips by the norm of its own partition."""
    from unittest import mock

    from deepspeed.runtime.zero import stage_1_and_2

    def patch(original, *arguments, **options):
        with mock.patch.object(stage_1_and_2.dist, "all_reduce"):
            return original(*arguments, **options)

    around(stage_1_and_2.DeepSpeedZeroOptimizer, "get_grad_norm_direct", patch)


@wrong("deepspeedai/DeepSpeed#1488", caught_by="loss_parity", on="zero3", spares="zero2")
def clipped_too_hard_in_one_stage() -> None:
    """ZeRO-3 clips gradients to a hundredth of the norm that it reports."""
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3

    def patch(original, self, sub_group_id, total_norm):
        return original(self, sub_group_id, 100 * total_norm)

    around(DeepSpeedZeroOptimizer_Stage3, "unscale_and_clip_grads", patch)


@wrong("huggingface/accelerate#963", caught_by="learning_rate_schedule", on="ddp zero2",
       spares="zero2_config_file")  # fmt: skip
def scheduler_stepped_per_micro_batch() -> None:
    """The learning rate falls with every micro-batch."""
    from accelerate.scheduler import AcceleratedScheduler
    from accelerate.state import AcceleratorState

    def patch(original, self, *arguments, **options):
        for _ in range(AcceleratorState().num_processes):
            self.scheduler.step(*arguments, **options)

    around(AcceleratedScheduler, "step", patch)


@wrong("huggingface/transformers#28391", caught_by="loss_falls", on="zero1 zero2", spares="zero3")
def master_weights_not_copied_back() -> None:
    """What the optimizer computed never reaches the weights that the model uses."""
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    def patch(original, self, *arguments, **options):
        before = [group.detach().clone() for group in self.bit16_groups_flat]
        original(self, *arguments, **options)
        for group, old in zip(self.bit16_groups_flat, before, strict=True):
            group.data.copy_(old)

    around(DeepSpeedZeroOptimizer, "step", patch)


@wrong("deepspeedai/DeepSpeed#5242", caught_by="loss_falls", on="ddp", spares="zero2")
def not_a_number_in_one_gradient() -> None:
    """One gradient is not a number."""
    from accelerate import Accelerator

    def patch(original, self, parameters, *arguments, **options):
        parameters = list(parameters)
        parameters[0].grad.view(-1)[0] = float("nan")
        return original(self, parameters, *arguments, **options)

    around(Accelerator, "clip_grad_norm_", patch)


@wrong("deepspeedai/DeepSpeed#5692", caught_by="gradient_norm", on="ddp", spares="zero1")
def gradients_not_reduced() -> None:
    """DDP's ranks do not reduce their gradients."""
    from torch.nn.parallel import DistributedDataParallel

    def patch(original, self, *arguments, **options):
        self.require_backward_grad_sync = False
        return original(self, *arguments, **options)

    around(DistributedDataParallel, "forward", patch)


@wrong("huggingface/transformers#34198", caught_by="gradient_norm", on="ddp fsdp2", spares="zero2")
def loss_divided_twice_by_accumulation() -> None:
    """The loss of a micro-batch is divided by the accumulation steps once more."""
    from accelerate import Accelerator
    from accelerate.utils import DistributedType

    def patch(original, self, loss, **options):
        if self.distributed_type != DistributedType.DEEPSPEED:
            loss = loss / self.gradient_accumulation_steps
        return original(self, loss, **options)

    around(Accelerator, "backward", patch)


@wrong("huggingface/accelerate#2694", caught_by="samples_missed_needed", on="ddp zero2")
def unsynchronised_sampler() -> None:
    """Each rank shuffles in its own way: some samples are drawn twice, others never."""
    import os

    from accelerate.data_loader import SeedableRandomSampler

    def patch(original, self, *arguments, **options):
        original(self, *arguments, **options)
        self.initial_seed += int(os.environ["RANK"])

    around(SeedableRandomSampler, "__init__", patch)


@wrong("huggingface/accelerate#3092", caught_by="samples_missed_needed", on="ddp zero2")
def data_sharded_twice() -> None:
    """The data is sharded twice: ranks train on half of it, and look twice as fast."""
    from accelerate import accelerator

    def patch(original, loader, *arguments, num_processes, **options):
        return original(loader, *arguments, num_processes=2 * num_processes, **options)

    around(accelerator, "prepare_data_loader", patch)


@wrong(
    "huggingface/accelerate#575",
    caught_by="eval_samples_miscounted_needed",
    on="ddp zero2",
    workload="deberta_mrpc",
)
def padding_is_scored() -> None:
    """Samples that fill the last evaluation batch are scored again."""
    from accelerate import Accelerator

    def patch(original, self, data, *arguments, **options):
        return self.gather(data)

    around(Accelerator, "gather_for_metrics", patch)
