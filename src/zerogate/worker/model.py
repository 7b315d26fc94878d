"""The model and the optimizer of a rank: the same weights and recipe under every strategy."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import DummyOptim, DummyScheduler

from zerogate.protocol.record import Recipe
from zerogate.protocol.schedule import schedule
from zerogate.worker import initial_weights
from zerogate.worker.workload import Workload


def build_model(
    workload: Workload, accelerator: Accelerator, seed: int, weights: Path | None = None
) -> torch.nn.Module:
    """Build the workload's model with the weights that ``seed`` gives, however it is sharded.

    Under ZeRO-3 the model is built sharded, and transformers then draws its weights in a different
    order than for an unsharded model. Rank 0 replaces them by those of an unsharded one. Collective.
    ``weights`` is a file that holds them, or will (``worker.initial_weights``); None to draw them.
    """
    plugin = accelerator.state.deepspeed_plugin
    first = accelerator.process_index == 0
    torch.manual_seed(seed)
    if plugin is None or not plugin.is_zero3_init_enabled():
        return initial_weights.build(workload, weights, keep=first)
    with initial_weights.shard_undrawn() if weights else nullcontext():
        model: Any = workload.build_skeleton()
    from deepspeed.runtime.zero import GatheredParameters

    integrations: Any = transformers.integrations
    reference: Mapping[str, torch.Tensor] = {}
    torch.manual_seed(seed)
    with plugin.zero3_init_context_manager(enable=False):
        integrations.unset_hf_deepspeed_config()  # The context manager leaves this on.
        if first:
            reference = initial_weights.parameters(workload, weights, model)
    for name, parameter in model.named_parameters():
        with GatheredParameters([parameter], modifier_rank=0), torch.no_grad():
            if reference:
                parameter.copy_(reference[name])
    model.tie_weights()
    sharded: torch.nn.Module = model
    return sharded


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
