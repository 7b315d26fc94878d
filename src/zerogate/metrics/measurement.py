"""Measurement of a cell: its launches' values, and the settings that make them comparable."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from zerogate.metrics.aggregation import DEVICE_MEMORY, LaunchValues, Value, launch_values
from zerogate.metrics.device_use import LaunchRecords
from zerogate.protocol.cell import Cell
from zerogate.protocol.record import PLAIN_ALLOCATOR, PRETRAINED, RankRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Values that one cell's launches measured.

    ``settings`` must be equal for two measurements to be compared at all. ``notes`` says by metric why
    it could not be measured. ``searched`` has what probe launches found: one value per metric, however
    many launches trained. ``launches`` are the training launches; there are none if only batch sizes
    were searched.
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
        """Names of the metrics that were measured."""
        trained = self.launches[0].values if self.launches else ()
        return [*trained, *self.searched]

    def each(self, name: str) -> list[Value]:
        """Return the value of every launch that has it."""
        if name in self.searched:
            return [self.searched[name]]
        return [launch.values[name] for launch in self.launches if name in launch.values]

    def value(self, name: str) -> Value | None:
        """Return the median over launches (of a series, step by step); None if it was not measured."""
        return median(self.each(name))

    def scalar(self, name: str) -> float:
        """Return the median of a metric that is known to be measured and to be one number."""
        value = self.value(name)
        assert isinstance(value, int | float), name
        return value

    def series(self, name: str) -> tuple[float, ...]:
        """Return the median, step by step, of a metric that is known to be a measured series."""
        value = self.value(name)
        assert isinstance(value, tuple), name
        return value

    @property
    def canary_seconds(self) -> float:
        """Median time of a fixed piece of the CPU's work, which shows how fast the CPU was."""
        return statistics.median(
            [launch.canary_seconds for launch in self.launches] or [self.probe_canary_seconds]
        )

    @property
    def device_events(self) -> tuple[str, ...]:
        """Sentences on what happened on its devices that makes its seconds not comparable."""
        trained = (event for launch in self.launches for event in launch.device_events)
        return (*trained, *self.probe_device_events)

    @property
    def device_source(self) -> str:
        """The host's source of peaks of devices; empty if none was read."""
        return next((launch.device_source for launch in self.launches), "")

    @property
    def peak_missing(self) -> str:
        """The reason why a launch lacks its devices' peak by the host's source; empty if none does."""
        return next((one.peak_missing for one in self.launches if one.peak_missing), "")


def median(values: Sequence[Value]) -> Value | None:
    """Return the lower median, which is one of ``values``: bytes stay whole. None without values.

    Of series, it is taken step by step; if they differ in length, the first one is returned.
    """
    if not values:
        return None
    if isinstance(values[0], tuple):
        rows = [value for value in values if isinstance(value, tuple)]
        if len({len(row) for row in rows}) > 1:
            return rows[0]
        return tuple(statistics.median_low(column) for column in zip(*rows, strict=True))
    return statistics.median_low([value for value in values if not isinstance(value, tuple)])


def measure(cell: Cell, launches: Sequence[LaunchRecords]) -> Measurement:
    """Return the measurement of a cell from its training launches, in which every record is ok."""
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
    """Return a measurement without a training launch: what the record ``first`` says of the cell.

    ``dtype`` is the requested one: a rank that ran out of memory in set-up does not know its own.
    """
    assert first.recipe is not None
    allocator = first.environment.get("allocator_settings") or PLAIN_ALLOCATOR
    other_allocator = cell.tier == "gpu" and allocator != PLAIN_ALLOCATOR
    return Measurement(
        cell=cell,
        launches=(),
        settings={
            "workload_version": first.workload_version,
            "data_origin": first.data_origin,
            "parameters": first.parameters,
            "dtype": first.applied.get("dtype", dtype),
            **asdict(first.recipe),
            # Baselines from when the cpu tier had no device of its own do not name one.
            **({"device": first.memory_source} if cell.tier == "cpu" else {}),
            # Left out at their first values, which baselines from before these settings have.
            **({"topology": first.topology} if first.topology else {}),
            **({"weights_origin": PRETRAINED} if first.weights_origin == PRETRAINED else {}),
            **({"allocator_settings": allocator} if other_allocator else {}),
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
    """Return the ratio of epoch seconds, reference to own, at equal micro-batch size."""
    return reference.scalar("epoch_seconds") / own.scalar("epoch_seconds")


def speedups(own: Measurement, reference: Measurement) -> tuple[float, ...]:
    """Return the speedup of each launch over the reference's median.

    With the reference fixed, the spread of these speedups is this cell's own.
    """
    seconds = reference.scalar("epoch_seconds")
    return tuple(seconds / value for value in own.each("epoch_seconds") if isinstance(value, float))


SPEEDUP = "speedup_over_ddp"
SPEEDUP_AT_MAX = "speedup_over_ddp_at_max"
AT_MAX = "samples_per_second_at_max"


def speedup_at_max(reference: Measurement, own: Measurement) -> float | None:
    """Return the ratio of samples per second, own to reference, each at its largest micro-batch.

    None if not even one sample fits one of them. This is the article's definition; it mixes the effect
    of the batch size with that of the strategy.
    """
    theirs, ours = (one.value(AT_MAX) for one in (reference, own))
    if not isinstance(theirs, float) or not isinstance(ours, float):
        return None
    return ours / theirs


def differing_settings(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return ``name: theirs -> ours`` for every setting that differs, sorted by name."""
    return [
        f"{name}: {theirs.get(name)} -> {ours.get(name)}"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]
