"""Search for the largest batch that fits a cell's memory budget, carried out by launches."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from zerogate.launch.errors import OutOfMemoryError
from zerogate.metrics.aggregation import device_events, other_processes
from zerogate.metrics.batch_size import SIZE, BatchSize
from zerogate.metrics.device_use import LaunchRecords, processes_before
from zerogate.protocol.batch_search import Probe, Search, Tried
from zerogate.protocol.job import BatchKind, ProbeRequest
from zerogate.protocol.record import Probed, RankRecord
from zerogate.verdicts.baselines import CellBaseline
from zerogate.verdicts.judge import CONFIRMING_LAUNCHES

LARGEST = 4096
"""The largest batch that is tried; the article's largest is 200."""

ProbeLaunch = Callable[[ProbeRequest, int], LaunchRecords]


def recorded_size(baseline: CellBaseline | None, kind: BatchKind) -> int | None:
    """Return the largest batch size in a cell's baseline; None without one, or if it is 0."""
    known = baseline.metrics.get(SIZE[kind]) if baseline else None
    size = known.value if known and isinstance(known.value, int) else 0
    return size if size > 0 else None


def find_batch_size(
    launch: ProbeLaunch, kind: BatchKind, guess: int | None, *, launched: int = 0
) -> tuple[BatchSize, RankRecord]:
    """Return the largest batch that fits, and a record of the first launch, which describes the cell.

    The search starts at ``guess``, a baseline's size, or else at 1. ``launched`` probe launches were
    made of the cell before. Raises the LaunchFailedError of a probe that failed in another way than by
    running out of memory.
    """
    search = Search(limit=LARGEST, guess=guess)
    certified: dict[int, _ProbeOutcome] = {}  # By the first size of a launch, the certain one.
    first: RankRecord | None = None
    note = ""
    others: set[int] = set()
    while (probe := search.ask()) is not None:
        outcome = _run(launch, kind, probe, launched + search.launches)
        first = first or outcome.record
        search.tell(probe, outcome.tried, outcome.failed_size)
        certified[probe.sizes[0]] = outcome
        note = outcome.why_failed or note
        others |= outcome.other_processes
    assert first is not None
    assert search.answer is not None
    found = _found(kind, search, certified.get(search.low), first, note)
    return replace(found, other_processes=tuple(sorted(others))), first


def search_again(launch: ProbeLaunch, found: BatchSize, guess: int | None) -> BatchSize:
    """Return the result of one more search, or ``found`` if that is as large.

    On a card, what fits depends on how the allocator cut its blocks. Both sizes are certified, so the
    larger one is right. There is no third search. Raises the LaunchFailedError of a probe that failed.
    """
    if found.searches > 1:
        return found
    again, _ = find_batch_size(launch, found.kind, guess, launched=found.launches)
    best = max(found, again, key=lambda one: one.size)
    return replace(
        best,
        launches=found.launches + again.launches,
        searches=found.searches + 1,
        other_processes=tuple(sorted({*found.other_processes, *again.other_processes})),
    )


def confirm_batch_size(launch: ProbeLaunch, found: BatchSize) -> BatchSize:
    """Return ``found`` with the median speed of CONFIRMING_LAUNCHES launches.

    Raises the LaunchFailedError of a launch that failed.
    """
    speeds = [found.samples_per_second]
    events = list(found.device_events)
    for index in range(1, CONFIRMING_LAUNCHES):
        request = ProbeRequest(kind=found.kind, sizes=(found.size,))
        launched = launch(request, found.launches + index - 1)
        first = launched.ranks[0]
        speeds.append(_speed(found.kind, first.probed[0], first))
        events += device_events(launched)
    speed = statistics.median(filter(None, speeds))
    return replace(found, samples_per_second=speed, device_events=tuple(dict.fromkeys(events)))


def time_alone(launch: ProbeLaunch, found: BatchSize) -> BatchSize:
    """Return ``found`` with its speed, from one more launch: something else ran during the search.

    Raises the LaunchFailedError of the launch.
    """
    launched = launch(ProbeRequest(kind=found.kind, sizes=(found.size,)), found.launches)
    first = launched.ranks[0]
    return replace(
        found,
        launches=found.launches + 1,
        samples_per_second=_speed(found.kind, first.probed[0], first),
        device_events=device_events(launched),
    )


@dataclass(frozen=True, slots=True)
class _ProbeOutcome:
    """Outcome of a probe launch: ``record`` has the sizes that fit, ``failed_size`` did not.

    If it did not run ``alone``, its seconds are not to be trusted.
    """

    record: RankRecord
    alone: bool = True
    failed_size: int | None = None
    why_failed: str = ""
    device_events: tuple[str, ...] = ()
    other_processes: set[int] = field(default_factory=set)

    @property
    def tried(self) -> list[Tried]:
        """The sizes that fit; without a recorded limit (before it was), the budget is the limit."""
        return [
            Tried(
                one.size,
                one.peak_allocated_bytes,
                one.forward_bytes,
                one.limit_bytes or self.record.budget_bytes,
            )
            for one in self.record.probed
        ]


def _run(launch: ProbeLaunch, kind: BatchKind, probe: Probe, index: int) -> _ProbeOutcome:
    request = ProbeRequest(kind=kind, sizes=probe.sizes, stop=probe.stop)
    try:
        launched = launch(request, index)
    except OutOfMemoryError as error:
        record = error.record
        assert record is not None
        assert record.failure is not None
        # It failed before the first size: the model alone does not fit.
        failed = record.probing or probe.sizes[0]
        what = "" if record.probing else "the model does not fit without a batch: "
        why = what + record.failure.message.splitlines()[0]
        others = set(processes_before(record, error.devices))
        return _ProbeOutcome(record, failed_size=failed, why_failed=why, other_processes=others)
    return _ProbeOutcome(
        launched.ranks[0],
        launched.alone,
        device_events=device_events(launched),
        other_processes=other_processes(launched),
    )


def _found(
    kind: BatchKind,
    search: Search,
    certified: _ProbeOutcome | None,
    record: RankRecord,
    note: str,
) -> BatchSize:
    size = search.low
    values: dict[str, Any] = {}
    if size:
        assert certified is not None
        sizes = {one.size: one for one in certified.record.probed}
        own, half = sizes[size], sizes.get(size // 2)
        values = {
            "headroom_bytes": record.budget_bytes - own.peak_allocated_bytes,
            "process_bytes": own.process_bytes,
            "samples_per_second": _speed(kind, own, record) if certified.alone else None,
            "allocator_retries": own.allocator_retries,
            "device_events": certified.device_events,
        }
        if half is not None:
            slope = round((own.forward_bytes - half.forward_bytes) / (size - half.size))
            values["bytes_per_sample"] = slope
            values["base_bytes"] = own.forward_bytes - slope * size
    return BatchSize(
        kind=kind,
        size=size,
        budget_bytes=record.budget_bytes,
        launches=search.launches,
        note=note if size == 0 else "",
        **values,
    )


def _speed(kind: BatchKind, own: Probed, record: RankRecord) -> float:
    """Return the samples per second of all ranks; the first step, which is cold, does not count."""
    assert record.recipe is not None
    steps = own.step_seconds[1:] or own.step_seconds
    micro_batches = record.recipe.gradient_accumulation_steps if kind == "train" else 1
    return own.size * micro_batches * record.world_size / statistics.median(steps)
