"""The largest batch that fits a cell's memory budget, as metrics. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from zerogate.metrics.aggregation import Value
from zerogate.metrics.measurement import Measurement
from zerogate.metrics.table import METRICS, Metric
from zerogate.protocol.job import BatchKind

SIZE: dict[BatchKind, str] = {"train": "max_micro_batch_size", "eval": "max_eval_batch_size"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSize:
    """The largest batch that fits, certified: it fits in a launch of its own, and one more does not.

    A ``size`` of 0 means that not even 1 fits; ``note`` then says which memory was short. After the
    forward pass a rank holds ``base_bytes`` + ``bytes_per_sample`` x size, from half of ``size`` to
    ``size``. Both come from the launch that certified the size, so that they do not depend on the
    search's path. ``headroom_bytes`` is what the budget leaves at ``size``, and ``process_bytes`` the
    peak of the process that held most of its card (0 on a CPU); the budget covers it.
    ``samples_per_second`` counts all ranks; ``device_events`` make it not comparable.
    ``other_processes`` are pids that were on the devices during the search. ``searches`` is 2 if a size
    that looked like a regression was searched once more. With ``allocator_retries``, ``size`` fits only
    because the allocator gave its cache back so many times.
    """

    kind: BatchKind
    size: int
    budget_bytes: int
    launches: int
    base_bytes: int | None = None
    bytes_per_sample: int | None = None
    headroom_bytes: int | None = None
    process_bytes: int = 0
    samples_per_second: float | None = None
    allocator_retries: int = 0
    device_events: tuple[str, ...] = ()
    other_processes: tuple[int, ...] = ()
    note: str = ""
    searches: int = 1

    def notes(self) -> dict[str, str]:
        """Return, by metric, why it has no value because not even 1 fits; empty if 1 fits."""
        if self.size:
            return {}
        names = (name for name, metric in METRICS.items() if searched_kind(metric) == self.kind)
        return dict.fromkeys(set(names) - set(self.values()), f"OOM at 1: {self.note}")

    def values(self) -> dict[str, Value]:
        """Return the values that are known, by the names of the metric table."""
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
    """Return the kind of search that finds ``metric``; None for a metric that training measures."""
    if metric.budget is None:
        return None
    return next(kind for kind, name in SIZE.items() if METRICS[name].budget == metric.budget)


def with_batch_sizes(measurement: Measurement, sizes: Iterable[BatchSize]) -> Measurement:
    """Return ``measurement`` with the batch sizes that were searched for its cell."""
    searched: dict[str, Value] = {}
    notes = dict(measurement.notes)
    events: list[str] = []
    processes: set[int] = set()
    for size in sizes:
        searched |= size.values()
        notes |= size.notes()
        events += size.device_events
        processes |= {*size.other_processes}
    return replace(
        measurement,
        searched=searched,
        notes=notes,
        probe_device_events=tuple(events),
        probe_other_processes=tuple(sorted(processes)),
    )
