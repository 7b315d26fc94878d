"""Comparison of the engine's configuration with the cell's request.

A strategy that silently became another one is the worst outcome of all: its numbers look fine.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedType

from zerogate.protocol.record import Recipe


class NotAppliedError(RuntimeError):
    """The engine runs something other than the cell requested."""


class NotPossibleError(RuntimeError):
    """The cell's request is not possible with this data or on this device."""


def check_collectives(device: torch.device) -> None:
    """Check the averaging collectives of FSDP on known values; DDP and DeepSpeed divide by themselves.

    Raises NotAppliedError: some torch releases sum when gloo should average (pytorch/pytorch#162338).
    """
    if not dist.is_initialized():
        return
    world = dist.get_world_size()
    mine = torch.full((world,), float(dist.get_rank() + 1), device=device)
    expected = (world + 1) / 2
    shard = torch.empty(1, device=device)
    dist.reduce_scatter_tensor(shard, mine.clone(), op=dist.ReduceOp.AVG)
    whole = mine.clone()
    dist.all_reduce(whole, op=dist.ReduceOp.AVG)
    for name, value in (("reduce_scatter", shard[0]), ("all_reduce", whole[0])):
        if abs(float(value) - expected) > 1e-6:
            raise NotAppliedError(
                f"collectives: {name} with AVG gave {float(value)} on this backend; expected "
                f"{expected}; install another torch release, this one cannot be measured here"
            )


def engine_config(
    accelerator: Accelerator, model: Any, optimizer: Any, recipe: Recipe
) -> dict[str, Any]:
    """Return what the engine and the process group report that they run; keys as in ``requested``."""
    found: dict[str, Any] = {
        "world_size": dist.get_world_size() if dist.is_initialized() else 1,
        "num_processes": accelerator.num_processes,
        "rank": accelerator.process_index,
        "distributed_type": accelerator.distributed_type.value,
        "engine": _engine(accelerator, model),
        "mixed_precision": _mixed_precision(accelerator),
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "gradient_accumulation_steps": accelerator.gradient_accumulation_steps,
        "micro_batch_size": recipe.micro_batch_size,
        "gradient_clipping": recipe.max_gradient_norm,
        "zero_stage": 0,
        "offload_optimizer": "none",
        "offload_param": "none",
        "optimizer": _innermost(optimizer),
    }
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        found.update(_deepspeed(model))
    elif accelerator.distributed_type == DistributedType.FSDP:
        place = next(model.parameters()).device.type
        # Its optimizer steps where the shards are.
        if place != accelerator.device.type:
            found.update(offload_optimizer=place, offload_param=place)
    return found


def _mixed_precision(accelerator: Accelerator) -> str:
    """Return Accelerate's precision, or for FSDP2 the one that its policy computes in."""
    if accelerator.distributed_type != DistributedType.FSDP:
        return str(accelerator.mixed_precision)
    policy = accelerator.state.fsdp_plugin.mixed_precision_policy
    names = {torch.bfloat16: "bf16", torch.float16: "fp16"}
    return names.get(policy.param_dtype, "no") if policy is not None else "no"


def _engine(accelerator: Accelerator, model: Any) -> str:
    """Return the class that wraps the model for training; ``none`` if no class does."""
    if accelerator.distributed_type == DistributedType.FSDP:
        return "FSDPModule" if hasattr(model, "set_reshard_after_forward") else "none"
    return "none" if accelerator.unwrap_model(model) is model else type(model).__name__


def _deepspeed(engine: Any) -> dict[str, Any]:
    return {
        "zero_stage": engine.zero_optimization_stage(),
        "offload_optimizer": _device(engine.zero_offload_optimizer()),
        "offload_param": _device(engine.zero_offload_param()),
        "gradient_accumulation_steps": engine.gradient_accumulation_steps(),
        "micro_batch_size": engine.train_micro_batch_size_per_gpu(),
        "gradient_clipping": engine.gradient_clipping(),
        "optimizer": type(engine.basic_optimizer).__name__,
    }


def _device(offload: Any) -> str:
    if offload is None:
        return "none"
    return str(getattr(offload.device, "value", offload.device))


def _innermost(optimizer: Any) -> str:
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return type(optimizer).__name__


def check_engine_config(requested: dict[str, Any], found: dict[str, Any]) -> None:
    """Raise NotAppliedError that names every key of ``requested`` with another value in ``found``."""
    wrong = [
        f"{name} is {found.get(name)!r} instead of {value!r}"
        for name, value in requested.items()
        if found.get(name) != value
    ]
    if int(os.environ["RANK"]) != found["rank"]:
        wrong.append(f"rank is {found['rank']} instead of {os.environ['RANK']}")
    if wrong:
        raise NotAppliedError(
            f"configuration not applied: {'; '.join(wrong)}; expected the engine to run what the cell "
            "requests; look for a setting that overrides the strategy file"
        )
