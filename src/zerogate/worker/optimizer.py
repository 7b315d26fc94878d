"""The recipe's optimizer and learning rate schedule, in the form that the strategy needs."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DummyOptim, DummyScheduler

from zerogate.protocol.record import Recipe
from zerogate.protocol.schedule import schedule


def build_optimizer(
    accelerator: Accelerator, model: torch.nn.Module, recipe: Recipe, total_steps: int
) -> tuple[Any, Any]:
    """Return the optimizer and the scheduler to pass to ``prepare``.

    They are placeholders if a DeepSpeed config file names its own (Accelerate demands it), and AdamW
    and a linear schedule otherwise. ``total_steps`` are the optimizer steps of the whole run.
    """
    plugin = accelerator.state.deepspeed_plugin
    config = plugin.deepspeed_config if plugin else {}
    # Accelerate steps a scheduler once per process and optimizer step.
    processes = accelerator.num_processes
    optimizer: Any
    if "optimizer" in config:
        optimizer = DummyOptim(
            model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
    else:
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
    if "scheduler" in config:
        # Accelerate divides the total by the number of processes, but not the warm-up.
        return optimizer, DummyScheduler(
            optimizer,
            total_num_steps=total_steps * processes,
            warmup_num_steps=recipe.warmup_steps,
        )
    return optimizer, torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: schedule(
            step // processes, warmup_steps=recipe.warmup_steps, total_steps=total_steps
        ),
    )
