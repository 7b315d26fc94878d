"""Invariants, which hold on any machine and are judged without a baseline. Pure functions.

A cell is compared with what its workload needs, with arithmetic, or with another cell of the session.
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
"""Largest relative difference from DDP that a step's loss or gradient norm may have in fp32."""

SCHEDULE_LIMIT = 1e-6
"""Largest relative difference from the schedule that a step's learning rate may have."""

CARD_NOISE_BYTES = 4096
"""Bytes by which memory may grow with each step on a card: its allocator rounds, and batches differ."""

LEAST_STEPS = 2
"""Steps at a learning rate above 0 before a loss can be expected to have fallen."""


def judge_same(
    metric: Metric, own: Measurement, other: Measurement, *, limit: float = PARITY_LIMIT
) -> Verdict:
    """Compare a per-step series of ``own`` with that of another cell of the same session."""
    found = compare_series(
        own.cell, metric, own.series(metric.name), other.series(metric.name), limit
    )
    return replace(found, metric=f"{metric.name}_parity", against=other.cell.strategy)


def judge_equivalent(metric: Metric, own: Measurement, other: Measurement, way: str) -> Verdict:
    """Compare the first steps of ``own`` with another way to train on the same global batches."""
    theirs = other.series(metric.name)
    if not own.averages_samples:
        why = "the loss averages tokens, so it depends on how samples are grouped"
        return _no_verdict(own, metric, way, why)
    mine = own.series(metric.name)[: len(theirs)]
    found = compare_series(own.cell, metric, mine, theirs, PARITY_LIMIT)
    return replace(found, metric=f"{metric.name}_{way}", against=way.replace("_", " "))


def judge_learned(own: Measurement, metric: Metric) -> Verdict:
    """Judge whether a quality metric reaches the value that shows that the model learned."""
    floor = own.quality_learned[metric.name]
    value = own.scalar(metric.name)
    reached = value >= floor if metric.better == "higher" else value <= floor
    note = "" if reached else "the model did not learn"
    return _verdict(own, metric, "learned", reached, value, floor, "needed", note)


def judge_below(
    own: Measurement, other: Measurement, metric: Metric, *, offloads_more: bool
) -> Verdict:
    """Judge whether ``own`` needs fewer bytes than a strategy that shards or offloads less."""
    if own.cell.world_size == 1 and not offloads_more:
        return _no_verdict(own, metric, "below", "a single rank has nobody to shard with")
    return _compared(own, other, metric, "below")


def judge_above(own: Measurement, other: Measurement, metric: Metric) -> Verdict:
    """Judge whether ``own`` needs more bytes off the device than a strategy that offloads less."""
    return _compared(own, other, metric, "above")


def judge_offloads(
    own: Measurement, other: Measurement, device_bytes: float, host_bytes: float
) -> list[Verdict]:
    """Judge whether ``own`` holds fewer model states than ``other`` on the device, more on the host.

    By the papers the device should lose ``device_bytes`` a parameter, and the host gain ``host_bytes``:
    at least those, since buffers are offloaded with the states.
    """
    found = []
    for name, sign, expected in (
        ("model_state_bytes", -1, device_bytes),
        ("host_state_bytes", 1, host_bytes),
    ):
        metric = metric_named(name)
        if own.value(name) is None or other.value(name) is None:
            why = own.notes.get(name, "not measured here")
            found.append(_no_verdict(own, metric, "offloaded", why))
            continue
        moved = sign * (own.scalar(name) - other.scalar(name)) / own.settings["parameters"]
        holds = moved >= expected
        note = "" if holds else f"too little was offloaded, beside {other.cell.strategy}"
        found.append(
            _verdict(own, metric, "offloaded", holds, moved, expected, "bytes a parameter", note)
        )
    return found


def _compared(own: Measurement, other: Measurement, metric: Metric, side: str) -> Verdict:
    mine, theirs = _bytes_of(own, metric), _bytes_of(other, metric)
    if not mine or not theirs:
        return _no_verdict(own, metric, side, own.notes.get(metric.name, "not measured here"))
    holds = mine < theirs if side == "below" else mine > theirs
    note = "" if holds else f"not {side} {other.cell.strategy}"
    return _verdict(own, metric, side, holds, mine, theirs, other.cell.strategy, note)


def _bytes_of(own: Measurement, metric: Metric) -> float:
    """Return the bytes; 0 if they are not known.

    Host memory includes pinned memory, which the driver allocates and which need not be resident.
    """
    if not isinstance(own.value(metric.name), int) or not own.value(metric.name):
        return 0
    pinned = own.value("pinned_bytes") if metric.name == "peak_host_bytes" else None
    return own.scalar(metric.name) + (pinned if isinstance(pinned, int) else 0)


def judge_needed(own: Measurement, metric: Metric) -> Verdict:
    """Judge whether a count is 0, the only right number."""
    return _counted(own, metric, "needed", lambda number: number == 0, 0, "needed")


def judge_grows(own: Measurement) -> Verdict:
    """Judge whether memory stays what it was a step ago; on a card, up to ``CARD_NOISE_BYTES``."""
    limit = 0 if own.cell.tier == "cpu" else CARD_NOISE_BYTES
    metric = metric_named("leak_bytes_per_step")
    why = "memory grows with every step"
    return _counted(own, metric, "grows", lambda leak: leak <= limit, limit, "at most", why)


def judge_moves(own: Measurement, metric: Metric) -> Verdict:
    """Judge whether a count is more than 0: offloaded states must move."""
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
    """Judge whether a series is finite and falls: its last quarter is lower than its first.

    Only the cpu tier's recipes surely learn in so few steps, so that only there it must fall.
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
    """Compare the learning rate of every step, the last one included, with the recipe's schedule.

    The schedule does not advance in a step that loss scaling skips.
    """
    metric = metric_named("learning_rate")
    # Taken from one launch, because others may have skipped other steps.
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
