"""A cell's measurement: what its launches measured, and the settings that make it comparable."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from zerogate.metrics.aggregation import DEVICE_MEMORY, LaunchValues, Value, launch_values
from zerogate.metrics.device_use import LaunchRecords
from zerogate.protocol.cell import Cell
from zerogate.protocol.record import PRETRAINED, RankRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one cell measured over its launches.

    ``settings`` are what two measurements must share to be compared at all. ``notes`` say what
    could not be measured and why, by metric. ``searched`` is what probe launches found; there is one
    of each, however many launches trained, and no launch at all where only batch sizes were asked for.
    """

    cell: Cell
    launches: tuple[LaunchValues, ...]
    settings: dict[str, Any]
    software: dict[str, str]
    quality_better: dict[str, str]
    quality_learned: dict[str, float]
    notes: dict[str, str]
    evaluates_by_generating: bool = False
    averages_samples: bool = True
    searched: dict[str, Value] = field(default_factory=dict)
    probe_canary_seconds: float = 0.0
    probe_device_events: tuple[str, ...] = ()
    probe_other_processes: tuple[int, ...] = ()

    @property
    def names(self) -> list[str]:
        trained = self.launches[0].values if self.launches else ()
        return [*trained, *self.searched]

    def each(self, name: str) -> list[Value]:
        """The value of every launch that has it."""
        if name in self.searched:
            return [self.searched[name]]
        return [launch.values[name] for launch in self.launches if name in launch.values]

    def value(self, name: str) -> Value | None:
        """Median over launches (of series, step by step); None where it was not measured."""
        return median(self.each(name))

    def scalar(self, name: str) -> float:
        """The value of a metric that is known to be measured and to be one number."""
        value = self.value(name)
        assert isinstance(value, int | float), name
        return value

    def series(self, name: str) -> tuple[float, ...]:
        value = self.value(name)
        assert isinstance(value, tuple), name
        return value

    @property
    def canary_seconds(self) -> float:
        return statistics.median(
            [launch.canary_seconds for launch in self.launches] or [self.probe_canary_seconds]
        )

    @property
    def device_events(self) -> tuple[str, ...]:
        """What happened on its devices that makes its seconds not comparable."""
        trained = (event for launch in self.launches for event in launch.device_events)
        return (*trained, *self.probe_device_events)


def median(values: Sequence[Value]) -> Value | None:
    """Median; an element of the input for an even count, so that bytes stay bytes."""
    if not values:
        return None
    if isinstance(values[0], tuple):
        rows = [value for value in values if isinstance(value, tuple)]
        if len({len(row) for row in rows}) > 1:
            return rows[0]
        return tuple(statistics.median_low(column) for column in zip(*rows, strict=True))
    return statistics.median_low([value for value in values if not isinstance(value, tuple)])


def measure(cell: Cell, launches: Sequence[LaunchRecords]) -> Measurement:
    """Aggregate the launches of a cell. Every record in them is ok."""
    first = launches[0].ranks[0]
    notes = {}
    if not first.memory:
        notes = dict.fromkeys(DEVICE_MEMORY, first.memory_source)
    return replace(
        describe(cell, first),
        launches=tuple(map(launch_values, launches)),
        notes=notes,
    )


def describe(cell: Cell, first: RankRecord, *, dtype: str = "") -> Measurement:
    """A measurement without a launch that trained: what ``first`` says of the cell.

    ``dtype`` is the one asked for: a rank that ran out while it was set up does not know its own.
    """
    assert first.recipe is not None
    return Measurement(
        cell=cell,
        launches=(),
        settings={
            "workload_version": first.workload_version,
            "data_origin": first.data_origin,
            "parameters": first.parameters,
            "dtype": first.applied.get("dtype", dtype),
            **asdict(first.recipe),
            # Only where they are not what baselines have always been of.
            **({"topology": first.topology} if first.topology else {}),
            **({"weights_origin": PRETRAINED} if first.weights_origin == PRETRAINED else {}),
        },
        software=first.environment,
        quality_better=first.quality_better,
        quality_learned=first.quality_learned,
        notes={},
        evaluates_by_generating=first.evaluates_by_generating,
        averages_samples=first.averages_samples,
        probe_canary_seconds=first.canary_seconds,
    )


def speedup_over(reference: Measurement, own: Measurement) -> float:
    """How much faster ``own`` finishes an epoch than ``reference``, at equal micro-batch size."""
    return reference.scalar("epoch_seconds") / own.scalar("epoch_seconds")


def speedups(own: Measurement, reference: Measurement) -> tuple[float, ...]:
    """Of each launch, against the reference's median: the spread is then this cell's own."""
    seconds = reference.scalar("epoch_seconds")
    return tuple(seconds / value for value in own.each("epoch_seconds") if isinstance(value, float))


SPEEDUP = "speedup_over_ddp"
SPEEDUP_AT_MAX = "speedup_over_ddp_at_max"
AT_MAX = "samples_per_second_at_max"


def speedup_at_max(reference: Measurement, own: Measurement) -> float | None:
    """Samples per second over ``reference``'s, each at its own largest micro-batch; None where one
    of them fits not even one sample. The article's definition: it mixes batch size with strategy.
    """
    theirs, ours = (one.value(AT_MAX) for one in (reference, own))
    if not isinstance(theirs, float) or not isinstance(ours, float):
        return None
    return ours / theirs


def differing_settings(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """``name: theirs -> ours`` for every setting that two measurements do not share."""
    return [
        f"{name}: {theirs.get(name)} -> {ours.get(name)}"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]
