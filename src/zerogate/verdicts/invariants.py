"""What must hold on any machine, from the first day: judged without a baseline. Pure.

A cell is held to what its workload needs, to arithmetic, or to another cell of the same session.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import replace

from zerogate.metrics.measurement import Measurement
from zerogate.metrics.table import Metric, metric_named
from zerogate.protocol.schedule import schedule
from zerogate.verdicts.verdict import Status, Verdict, change_of, compare_series

PARITY_LIMIT = 1e-3
"""Relative difference from DDP that a step's loss or gradient norm may have in fp32."""

SCHEDULE_LIMIT = 1e-6

CARD_NOISE_BYTES = 4096

LEAST_STEPS = 2
"""Of training, before a loss can be expected to have fallen."""


def judge_same(
    metric: Metric, own: Measurement, other: Measurement, *, limit: float = PARITY_LIMIT
) -> Verdict:
    """Hold a per-step series of ``own`` to that of another cell of the same session."""
    found = compare_series(
        own.cell, metric, own.series(metric.name), other.series(metric.name), limit
    )
    return replace(found, metric=f"{metric.name}_parity", against=other.cell.strategy)


def judge_equivalent(metric: Metric, own: Measurement, other: Measurement, way: str) -> Verdict:
    """Hold the first steps of ``own`` to those of another way to train on the same global batches."""
    theirs = other.series(metric.name)
    if not own.averages_samples:
        why = "the loss averages tokens, so it depends on how samples are grouped"
        return _no_verdict(own, metric, way, why)
    mine = own.series(metric.name)[: len(theirs)]
    found = compare_series(own.cell, metric, mine, theirs, PARITY_LIMIT)
    return replace(found, metric=f"{metric.name}_{way}", against=way.replace("_", " "))


def judge_learned(own: Measurement, metric: Metric) -> Verdict:
    """Hold a quality metric to what a model that learned must reach."""
    floor = own.quality_learned[metric.name]
    value = own.scalar(metric.name)
    reached = value >= floor if metric.better == "higher" else value <= floor
    note = "" if reached else "the model did not learn"
    return _verdict(own, metric, "learned", reached, value, floor, "needed", note)


def judge_below(
    own: Measurement, other: Measurement, metric: Metric, *, offloads_more: bool
) -> Verdict:
    """Hold bytes of ``own`` to those of a strategy that shards or offloads less: it needs fewer."""
    if own.cell.world_size == 1 and not offloads_more:
        return _no_verdict(own, metric, "below", "a single rank has nobody to shard with")
    return _compared(own, other, metric, "below")


def judge_above(own: Measurement, other: Measurement, metric: Metric) -> Verdict:
    """Hold bytes of ``own`` to those of a strategy that offloads less: it needs more elsewhere."""
    return _compared(own, other, metric, "above")


def _compared(own: Measurement, other: Measurement, metric: Metric, side: str) -> Verdict:
    mine, theirs = _bytes_of(own, metric), _bytes_of(other, metric)
    if not mine or not theirs:
        return _no_verdict(own, metric, side, own.notes.get(metric.name, "not measured here"))
    holds = mine < theirs if side == "below" else mine > theirs
    note = "" if holds else f"not {side} {other.cell.strategy}"
    return _verdict(own, metric, side, holds, mine, theirs, other.cell.strategy, note)


def _bytes_of(own: Measurement, metric: Metric) -> float:
    """0 where it is not known. Pinned memory is a driver's to give, and need not count as resident."""
    if not isinstance(own.value(metric.name), int) or not own.value(metric.name):
        return 0
    pinned = own.value("pinned_bytes") if metric.name == "peak_host_bytes" else None
    return own.scalar(metric.name) + (pinned if isinstance(pinned, int) else 0)


def judge_needed(own: Measurement, metric: Metric) -> Verdict:
    """Hold a count to 0, the one number that is right."""
    return _counted(own, metric, "needed", lambda number: number == 0, 0, "needed")


def judge_grows(own: Measurement) -> Verdict:
    """Hold memory to what it was a step ago. On a card the allocator rounds, and batches differ."""
    limit = 0 if own.cell.tier == "cpu" else CARD_NOISE_BYTES
    metric = metric_named("leak_bytes_per_step")
    why = "memory grows with every step"
    return _counted(own, metric, "grows", lambda leak: leak <= limit, limit, "at most", why)


def judge_moves(own: Measurement, metric: Metric) -> Verdict:
    """Hold a count to being more than 0: what is offloaded moves."""
    why = "nothing was offloaded"
    return _counted(own, metric, "moves", lambda number: number > 0, 1, "needed", why)


def _counted(
    own: Measurement,
    metric: Metric,
    suffix: str,
    holds: Callable[[float], bool],
    bound: float,
    against: str,
    why: str = "",
) -> Verdict:
    if own.value(metric.name) is None:
        return _no_verdict(own, metric, suffix, own.notes.get(metric.name, "not measured here"))
    number = own.scalar(metric.name)
    held = holds(number)
    return _verdict(own, metric, suffix, held, number, bound, against, "" if held else why)


def judge_falls(own: Measurement, metric: Metric) -> Verdict:
    """Hold a series to being finite and, where generated data teaches in so few steps, lower in its
    last quarter than in its first.
    """
    values = own.series(metric.name)
    for step, value in enumerate(values):
        if not math.isfinite(value):
            found = _verdict(own, metric, "falls", False, value, values[0], "at first")
            return replace(found, step=step)
    if own.cell.tier == "gpu":
        return _no_verdict(own, metric, "falls", "finite; only the cpu tier's recipes surely learn")
    trained = sum(rate > 0 for rate in own.series("learning_rate"))
    if trained < LEAST_STEPS:
        return _no_verdict(own, metric, "falls", f"only {trained} steps at a rate above 0")
    quarter = max(1, len(values) // 4)
    first, last = statistics.fmean(values[:quarter]), statistics.fmean(values[-quarter:])
    return _verdict(own, metric, "falls", last < first, last, first, "at first")


def judge_schedule(own: Measurement) -> Verdict:
    """Hold every step's learning rate to the recipe's schedule, the last one's included. A step that
    loss scaling skips is none of the schedule's.
    """
    metric = metric_named("learning_rate")
    # Of one launch: others may have skipped others.
    launch = own.launches[0]
    measured = launch.values[metric.name]
    assert isinstance(measured, tuple)
    skipped = launch.skipped or (False,) * len(measured)
    taken = [step - sum(skipped[:step]) for step in range(len(measured))]
    expected = tuple(
        own.settings["learning_rate"]
        * schedule(step, warmup_steps=own.settings["warmup_steps"], total_steps=len(measured))
        for step in taken
    )
    found = compare_series(own.cell, metric, measured, expected, SCHEDULE_LIMIT)
    return replace(found, metric=f"{metric.name}_schedule", against="the schedule")


def _verdict(
    own: Measurement,
    metric: Metric,
    suffix: str,
    holds: bool,
    measured: float,
    expected: float,
    against: str,
    note: str = "",
) -> Verdict:
    return Verdict(
        cell=own.cell,
        metric=f"{metric.name}_{suffix}",
        status="ok" if holds else "regressed",
        unit=metric.unit,
        measured=measured,
        expected=expected,
        change=change_of(measured, expected),
        tolerance=0.0,
        against=against,
        note=note,
    )


def _no_verdict(own: Measurement, metric: Metric, suffix: str, why: str) -> Verdict:
    status: Status = "not_comparable"
    return Verdict(
        cell=own.cell, metric=f"{metric.name}_{suffix}", status=status, unit=metric.unit, note=why
    )
