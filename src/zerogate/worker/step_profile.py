"""Profile of one optimizer step after all timed ones: exact counts of what it does.

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

from zerogate.protocol.record import COLLECTIVES, OTHER_COLLECTIVE, Collective, Crossings, Traced
from zerogate.worker import disk
from zerogate.worker.gloo import once_released
from zerogate.worker.setup import Prepared

BACKENDS = ("gloo", "nccl")
"""Backends whose events are counted. They are a process group's own events, DDP's reducer included, as
the group runs them (gloo runs a reduce-scatter as an all-reduce). They carry shapes and types; torch's
events do not for lists of tensors.
"""

ITEM_BYTES = {
    "double": 8, "long": 8, "long int": 8, "float": 4, "int": 4, "c10::Half": 2,
    "c10::BFloat16": 2, "short": 2, "unsigned char": 1, "signed char": 1, "bool": 1,
}  # fmt: skip
"""Bytes of an element, by the profiler's name of the type."""


def trace_step(cell: Prepared, batches: Iterator[Any]) -> Traced:
    """Train for one more optimizer step and return its counts. Collective."""
    cell.trainer.model.train()
    meter = cell.phases.meter
    before, crossed = disk.swapped_bytes(), meter.crossings()
    states: list[int] = []
    on_host: list[int | None] = []

    def look() -> None:
        states.append(_settled(cell))
        on_host.append(cell.phases.host_bytes)

    with (
        _before_optimizer_step(cell, look),
        profile(
            activities=[ProfilerActivity.CPU], record_shapes=True, with_flops=True, acc_events=True
        ) as profiler,
    ):
        cell.trainer.step(batches)
    swapped = disk.swapped_bytes() - before
    crossings = None
    if crossed is not None and (now := meter.crossings()) is not None and on_host[-1] is not None:
        now.subtract(crossed)
        crossings = Crossings(host_state_bytes=on_host[-1], **now)
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    return Traced(
        collectives=collectives(events),
        operators=sum(event.name().startswith("aten::") for event in events),
        flops=sum(event.flops() for event in events),
        model_state_bytes=states[-1],
        disk_read_bytes=swapped["read"],
        disk_written_bytes=swapped["written"],
        crossings=crossings,
    )


def collectives(events: Iterable[Any]) -> dict[str, Collective]:
    """Return calls and payload bytes by kind, from the profiler's events; 0 for kinds without one."""
    found = dict.fromkeys(COLLECTIVES, Collective(calls=0, payload_bytes=0))
    for event in events:
        backend, _, name = event.name().partition(":")
        if backend not in BACKENDS or not name or name.startswith(":"):
            continue
        # NCCL's names: _all_gather_base, _reduce_scatter_base, allgather_into_tensor_coalesced.
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
    """Return the live bytes without garbage: reference cycles, which FSDP2 leaves now and then, and
    what gloo's thread still holds.
    """
    cell.phases.collect_garbage()
    if cell.accelerator.device.type == "cuda":
        return cell.phases.live_bytes
    return once_released(lambda: cell.phases.live_bytes)


def _before_optimizer_step(cell: Prepared, look: Callable[[], None]) -> AbstractContextManager[Any]:
    """Call ``look`` before each optimizer step in this context.

    DeepSpeed's engine takes the step at the end of Accelerate's backward; otherwise the optimizer does.
    """
    deepspeed = cell.accelerator.distributed_type == DistributedType.DEEPSPEED
    owner = cell.trainer.model if deepspeed else cell.trainer.optimizer
    step: Any = owner.step

    def observed(*arguments: Any, **options: Any) -> Any:
        look()
        return step(*arguments, **options)

    return mock.patch.object(owner, "step", observed)
