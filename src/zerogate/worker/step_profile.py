"""One optimizer step under observation, after all that is timed: what it does, counted exactly.

Seconds depend on the machine; collectives, operators and bytes do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

from accelerate.utils import DistributedType
from torch.profiler import ProfilerActivity, profile

from zerogate.protocol.record import COLLECTIVES, OTHER_COLLECTIVE, Collective, Traced
from zerogate.worker import disk
from zerogate.worker.gloo import once_released
from zerogate.worker.setup import Prepared

BACKENDS = ("gloo", "nccl")
"""Whose events are counted: a process group's own, as it runs them (gloo runs a reduce-scatter as an
all-reduce), DDP's reducer included. They carry shapes and types; torch's do not for lists of tensors.
"""

ITEM_BYTES = {
    "double": 8, "long": 8, "long int": 8, "float": 4, "int": 4, "c10::Half": 2,
    "c10::BFloat16": 2, "short": 2, "unsigned char": 1, "signed char": 1, "bool": 1,
}  # fmt: skip
"""Bytes of an element, by the names that the profiler gives types."""


def trace_step(cell: Prepared, batches: Iterator[Any]) -> Traced:
    """Train for one more optimizer step. Collective."""
    cell.trainer.model.train()
    before = disk.swapped_bytes()
    states: list[int] = []
    with (
        _before_optimizer_step(cell, lambda: states.append(_settled(cell))),
        profile(
            activities=[ProfilerActivity.CPU], record_shapes=True, with_flops=True, acc_events=True
        ) as profiler,
    ):
        cell.trainer.step(batches)
    swapped = disk.swapped_bytes() - before
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    return Traced(
        collectives=collectives(events),
        operators=sum(event.name().startswith("aten::") for event in events),
        flops=sum(event.flops() for event in events),
        model_state_bytes=states[-1],
        disk_read_bytes=swapped["read"],
        disk_written_bytes=swapped["written"],
    )


def collectives(events: Iterable[Any]) -> dict[str, Collective]:
    """Calls and payload by kind, of the profiler's events. Kinds that did not occur are 0."""
    found = dict.fromkeys(COLLECTIVES, Collective(calls=0, payload_bytes=0))
    for event in events:
        backend, _, name = event.name().partition(":")
        if backend not in BACKENDS or not name or name.startswith(":"):
            continue
        # NCCL says _all_gather_base, _reduce_scatter_base, allgather_into_tensor_coalesced.
        plain = name.replace("allgather", "all_gather").replace("allreduce", "all_reduce")
        kind = next((kind for kind in COLLECTIVES if kind in plain), OTHER_COLLECTIVE)
        payload = sum(
            math.prod(shape) * ITEM_BYTES[dtype]
            for shape, dtype in zip(event.shapes(), event.dtypes(), strict=True)
            if dtype in ITEM_BYTES
        )
        one = found[kind]
        found[kind] = Collective(calls=one.calls + 1, payload_bytes=one.payload_bytes + payload)
    return found


def _settled(cell: Prepared) -> int:
    """Live bytes without what is over: reference cycles, of which FSDP2 leaves some now and then, and
    what gloo's thread still holds.
    """
    cell.phases.settle()
    if cell.accelerator.device.type != "cpu":
        return cell.phases.live_bytes
    return once_released(lambda: cell.phases.live_bytes)


def _before_optimizer_step(cell: Prepared, look: Callable[[], None]) -> AbstractContextManager[Any]:
    """Have ``look`` called before each optimizer step: DeepSpeed's engine takes it on the way out of
    Accelerate's backward, elsewhere it is the optimizer's own.
    """
    deepspeed = cell.accelerator.distributed_type == DistributedType.DEEPSPEED
    owner = cell.trainer.model if deepspeed else cell.trainer.optimizer
    step: Any = owner.step

    def observed(*arguments: Any, **options: Any) -> Any:
        look()
        return step(*arguments, **options)

    return mock.patch.object(owner, "step", observed)
