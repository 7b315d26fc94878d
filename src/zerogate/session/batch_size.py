"""The largest batch that fits a cell's memory budget: the search, carried out by probe launches."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from zerogate.launch.errors import OutOfMemoryError
from zerogate.metrics.aggregation import Value, strangers, troubles
from zerogate.metrics.table import METRICS, Metric
from zerogate.protocol.batch_search import Probe, Search
from zerogate.protocol.record import BatchKind, Probed, ProbeRequest, RankRecord

LARGEST = 4096
"""No batch larger than this is tried: the article's largest is 200."""

CONFIRMING_LAUNCHES = 3
"""What seems slow is launched this many times in all, and judged by the median."""

SIZE: dict[BatchKind, str] = {"train": "max_micro_batch_size", "eval": "max_eval_batch_size"}

ProbeLaunch = Callable[[ProbeRequest, int], tuple[RankRecord, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSize:
    """The largest batch that fits, certified: it fits in a launch of its own, one more does not.

    ``size`` 0: not even 1 fits, and ``note`` says what was short. What is held after the forward pass
    is ``base_bytes`` + ``bytes_per_sample`` x size between half the size and the size itself, both
    of the launch that certified it: however the search got there, the line is the same.
    ``headroom_bytes`` is what the budget leaves at ``size``; ``samples_per_second`` are of all ranks;
    ``troubles`` are why they say nothing of the stack. ``strangers`` were on its devices meanwhile.
    """

    kind: BatchKind
    size: int
    budget_bytes: int
    launches: int
    base_bytes: int | None = None
    bytes_per_sample: int | None = None
    headroom_bytes: int | None = None
    samples_per_second: float | None = None
    allocator_retries: int = 0
    troubles: tuple[str, ...] = ()
    strangers: tuple[int, ...] = ()
    note: str = ""

    def notes(self) -> dict[str, str]:
        """Why there is no value, by metric, where not even 1 fits."""
        if self.size:
            return {}
        names = (name for name, metric in METRICS.items() if searched_kind(metric) == self.kind)
        return dict.fromkeys(set(names) - set(self.values()), f"OOM at 1: {self.note}")

    def values(self) -> dict[str, Value]:
        """By the names of the metric table; what is not known is left out."""
        prefix = "" if self.kind == "train" else "eval_"
        found = {
            SIZE[self.kind]: self.size,
            f"{prefix}batch_budget_bytes": self.budget_bytes,
            f"{prefix}batch_base_bytes": self.base_bytes,
            f"{prefix}batch_bytes_per_sample": self.bytes_per_sample,
            f"{prefix}batch_headroom_bytes": self.headroom_bytes,
            f"{prefix}samples_per_second_at_max": self.samples_per_second,
        }
        return {name: value for name, value in found.items() if value is not None}


def searched_kind(metric: Metric) -> BatchKind | None:
    """Which search finds ``metric``; None for what training measures."""
    if metric.budget is None:
        return None
    return next(kind for kind, name in SIZE.items() if METRICS[name].budget == metric.budget)


def find(launch: ProbeLaunch, kind: BatchKind, guess: int | None) -> tuple[BatchSize, RankRecord]:
    """Search from ``guess``, what a baseline says, or from nothing; with what was found comes the
    first launch's record, which says what was probed.

    Raises the LaunchFailedError of a probe that did not end by running out of memory.
    """
    search = Search(limit=LARGEST, guess=guess)
    certified: dict[int, _Launched] = {}  # By the size that a fresh launch began with.
    first: RankRecord | None = None
    note = ""
    others: set[int] = set()
    while (probe := search.ask()) is not None:
        launched = _run(launch, kind, probe, search.launches)
        first = first or launched.record
        search.tell(probe, [one.size for one in launched.record.probed], launched.failed)
        certified[probe.sizes[0]] = launched
        note = launched.why or note
        others |= launched.strangers
    assert first is not None
    assert search.answer is not None
    found = _found(kind, search, certified.get(search.low), first, note)
    return replace(found, strangers=tuple(sorted(others))), first


def confirm(launch: ProbeLaunch, found: BatchSize) -> BatchSize:
    """``found`` with the median speed of as many launches as tell a slow one from a slow machine.

    Raises the LaunchFailedError of one that did not bring it back.
    """
    speeds = [found.samples_per_second]
    seen = list(found.troubles)
    for index in range(1, CONFIRMING_LAUNCHES):
        request = ProbeRequest(kind=found.kind, sizes=(found.size,))
        records = launch(request, found.launches + index - 1)
        speeds.append(_speed(found.kind, records[0].probed[0], records[0]))
        seen += troubles(records)
    speed = statistics.median(filter(None, speeds))
    return replace(found, samples_per_second=speed, troubles=tuple(dict.fromkeys(seen)))


@dataclass(frozen=True, slots=True)
class _Launched:
    """A probe launch: the record to go by, the size that ran out and why, what was wrong with its
    devices.
    """

    record: RankRecord
    failed: int | None = None
    why: str = ""
    troubles: tuple[str, ...] = ()
    strangers: set[int] = field(default_factory=set)


def _run(launch: ProbeLaunch, kind: BatchKind, probe: Probe, index: int) -> _Launched:
    request = ProbeRequest(kind=kind, sizes=probe.sizes, stop=probe.stop)
    try:
        records = launch(request, index)
        return _Launched(records[0], troubles=troubles(records), strangers=strangers(records))
    except OutOfMemoryError as error:
        record = error.record
        assert record is not None
        assert record.failure is not None
        # Before the first size: the model alone is too much, whatever the batch.
        failed = record.probing or probe.sizes[0]
        what = "" if record.probing else "the model does not fit without a batch: "
        why = what + record.failure.message.splitlines()[0]
        return _Launched(record, failed, why, strangers=strangers([record]))


def _found(
    kind: BatchKind,
    search: Search,
    certified: _Launched | None,
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
            "samples_per_second": _speed(kind, own, record),
            "allocator_retries": own.allocator_retries,
            "troubles": certified.troubles,
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
    """Samples per second of all ranks; the first training step, which is cold, does not count."""
    assert record.recipe is not None
    steps = own.step_seconds[1:] or own.step_seconds
    micro_batches = record.recipe.gradient_accumulation_steps if kind == "train" else 1
    return own.size * micro_batches * record.world_size / statistics.median(steps)
