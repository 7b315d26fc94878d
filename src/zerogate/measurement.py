"""A cell's measurement: the records of its launches, aggregated. The only place that aggregates."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from zerogate.cell import Cell
from zerogate.record import Phase, RankRecord

Value = float | int | tuple[float, ...]

WARMUP_STEPS = 3
"""Steps that are not steady yet: the two at learning rate 0, and optimizer states coming to life."""

PEAKS: dict[str, Phase] = {
    "peak_allocated_bytes": "steady",
    "peak_init_bytes": "init",
    "peak_first_step_bytes": "first_step",
    "peak_eval_bytes": "eval",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchValues:
    """The metrics of one launch, and per rank those that are taken from the worst rank."""

    values: dict[str, Value]
    per_rank: dict[str, tuple[float, ...]]
    canary_seconds: float


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
    searched: dict[str, Value] = field(default_factory=dict)
    probe_canary_seconds: float = 0.0

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


def measure(cell: Cell, launches: Sequence[Sequence[RankRecord]]) -> Measurement:
    """Aggregate the rank records of each of a cell's launches. Every record is ok."""
    first = launches[0][0]
    notes = {}
    if not first.memory:
        notes = dict.fromkeys([*PEAKS, "live_bytes"], first.memory_source)
    return replace(
        described(cell, first),
        launches=tuple(launch_values(records) for records in launches),
        notes=notes,
    )


def described(cell: Cell, first: RankRecord) -> Measurement:
    """A measurement without a launch that trained: what ``first`` says of the cell."""
    assert first.recipe is not None
    return Measurement(
        cell=cell,
        launches=(),
        settings={
            "workload_version": first.workload_version,
            "data_origin": first.data_origin,
            "parameters": first.parameters,
            "dtype": first.applied["dtype"],
            **asdict(first.recipe),
        },
        software=first.environment,
        quality_better=first.quality_better,
        quality_learned=first.quality_learned,
        notes={},
        evaluates_by_generating=first.evaluates_by_generating,
        probe_canary_seconds=first.canary_seconds,
    )


def launch_values(records: Sequence[RankRecord]) -> LaunchValues:
    """One launch: memory from the worst rank, time from the slowest, samples summed, losses averaged.

    Gradient norm, learning rate and quality are global already; they are rank 0's.
    """
    first = records[0]
    values: dict[str, Value] = {}
    per_rank: dict[str, tuple[float, ...]] = {}

    def worst(name: str, numbers: Sequence[float]) -> None:
        per_rank[name] = tuple(numbers)
        values[name] = max(numbers)

    if first.memory:
        for name, phase in PEAKS.items():
            worst(name, [record.memory[phase].peak_allocated_bytes for record in records])
        worst("live_bytes", [record.memory["steady"].live_bytes for record in records])
    values["loss"] = _by_step(statistics.fmean, [record.loss for record in records])
    values["gradient_norm"] = first.gradient_norm
    values["learning_rate"] = first.learning_rate
    epochs = len(first.train_seconds)
    samples = sum(sum(record.step_samples) for record in records)
    values["samples_per_epoch"] = samples / epochs if samples % epochs else samples // epochs
    values.update(first.quality)
    epoch_seconds = statistics.median(_by_step(max, [record.train_seconds for record in records]))
    steps = _by_step(max, [record.step_seconds for record in records])
    values["epoch_seconds"] = epoch_seconds
    values["step_seconds"] = statistics.median(steps[WARMUP_STEPS:] or steps)
    worst("eval_seconds", [record.eval_seconds for record in records])
    worst("setup_seconds", [record.setup_seconds for record in records])
    values["samples_per_second"] = samples / epochs / epoch_seconds
    worst("peak_host_bytes", [record.peak_host_bytes for record in records])
    return LaunchValues(
        values=values,
        per_rank=per_rank,
        canary_seconds=max(record.canary_seconds for record in records),
    )


def _by_step(combine: Any, rows: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(combine(column) for column in zip(*rows, strict=True))


def speedup_over(reference: Measurement, own: Measurement) -> float:
    """How much faster ``own`` finishes an epoch than ``reference``, at equal micro-batch size."""
    return reference.scalar("epoch_seconds") / own.scalar("epoch_seconds")


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
