"""Faults of configuration: something other than what was asked for runs, and says nothing."""

from __future__ import annotations

from functools import partial

from tests.faults.fault import WRONG_CONFIGURATION, around, fault

configuration = partial(fault, family="configuration", caught_by=WRONG_CONFIGURATION)


def before_deepspeed(change) -> None:
    """Have ``change`` at the configuration that Accelerate hands to DeepSpeed."""
    from accelerate import Accelerator

    def patch(original, self, *arguments):
        change(self.state.deepspeed_plugin.deepspeed_config)
        return original(self, *arguments)

    around(Accelerator, "_prepare_deepspeed", patch)


@configuration("huggingface/accelerate#2514", on="zero1 zero2", spares="ddp")
def stage_silently_zero() -> None:
    """No ZeRO stage runs, whichever is requested."""
    before_deepspeed(lambda config: config.update(zero_optimization={"stage": 0}))


@configuration("huggingface/accelerate#2514", on="zero2_offload", spares="zero2")
def offload_ignored() -> None:
    """Optimizer states stay on the device."""

    def change(config) -> None:
        config["zero_optimization"].pop("offload_optimizer", None)

    before_deepspeed(change)


@configuration("huggingface/accelerate#3979", on="ddp fsdp2")
def precision_ignored() -> None:
    """The model trains in bfloat16 although float32 was requested."""
    import torch
    from accelerate import Accelerator

    def patch(original, self, model, *others, **options):
        if isinstance(model, torch.nn.Module):
            model = model.to(torch.bfloat16)
        return original(self, model, *others, **options)

    around(Accelerator, "prepare", patch)


@configuration("huggingface/transformers#35207", on="zero1", spares="ddp")
def accumulation_ignored() -> None:
    """The engine steps with every micro-batch."""
    from deepspeed.runtime.engine import DeepSpeedEngine

    def patch(original, self, *arguments, **options):
        original(self, *arguments, **options)
        self._config.gradient_accumulation_steps = 1

    around(DeepSpeedEngine, "__init__", patch)


@configuration("deepspeedai/DeepSpeed#5150", on="zero3", spares="ddp")
def clipping_ignored() -> None:
    """Gradients are not clipped."""
    before_deepspeed(lambda config: config.update(gradient_clipping=0.0))


@configuration("deepspeedai/DeepSpeed#735", on="zero2_offload", spares="zero2")
def cpu_adam_replaced() -> None:
    """Torch's Adam runs on the CPU in place of DeepSpeed's vectorised one."""
    from accelerate import accelerator

    around(accelerator, "map_pytorch_optim_to_deepspeed", lambda original, optimizer: optimizer)
    before_deepspeed(lambda config: config.update(zero_force_ds_cpu_optimizer=False))
