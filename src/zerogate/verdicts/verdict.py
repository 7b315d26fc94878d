"""Verdicts: a measured value compared with its baseline. No clock, no files, no pytest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from zerogate.metrics.aggregation import Value
from zerogate.metrics.table import Metric
from zerogate.protocol.cell import Cell
from zerogate.verdicts.baselines import MetricBaseline, spread

Status = Literal["ok", "improved", "regressed", "no_baseline", "not_comparable", "invalid"]

GRAVITY: tuple[Status, ...] = (
    "regressed",
    "no_baseline",
    "invalid",
    "not_comparable",
    "improved",
    "ok",
)
"""Statuses, the worst first."""

SPREADS_ALLOWED = 3.0
"""Multiple of the baseline's own spread that a change may reach: three launches show a part of it."""

JITTER = 1e-3
"""Smallest relative tolerance of a metric if the launches of its baseline differed at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Verdict on one metric of one cell, with both numbers.

    ``change`` is relative to ``expected``, and ``tolerance`` is its limit. For a series the numbers are
    those of ``step``, the one that deviates most. ``against`` says what ``expected`` is: the value of
    the baseline, that of another strategy of this session, or what is ``needed``. ``note`` says why
    there is no comparison.
    """

    cell: Cell
    metric: str
    status: Status
    unit: str
    measured: float | None = None
    expected: float | None = None
    change: float | None = None
    tolerance: float | None = None
    step: int | None = None
    against: str = "baseline"
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the flat form that results.json has."""
        values = asdict(self)
        return {**values.pop("cell"), **values}


def compare(
    cell: Cell, metric: Metric, measured: Value | None, baseline: MetricBaseline | None
) -> Verdict:
    """Compare one measured value with its baseline; the caller knows that they are comparable."""
    metric = metric.on(cell.tier)

    def verdict(status: Status, **values: Any) -> Verdict:
        return Verdict(cell=cell, metric=metric.name, status=status, unit=metric.unit, **values)

    if measured is None:
        return verdict("not_comparable", note="not measured here")
    if baseline is None:
        number = None if isinstance(measured, tuple) else measured
        return verdict("no_baseline", measured=number, note="no baseline of this metric")
    if isinstance(measured, tuple) or isinstance(baseline.value, tuple):
        limits = [_allowed(metric, one) for one in _spreads(baseline)]
        return compare_series(cell, metric, _series(measured), _series(baseline.value), limits)
    allowed = _allowed(metric, baseline.spread)
    expected = baseline.value
    # If the expected value is 0, the spread is absolute (``baselines.spread``).
    absolute = (
        metric.absolute if expected else max(metric.absolute, SPREADS_ALLOWED * baseline.spread)
    )
    tolerance = _tolerance(expected, allowed, absolute)
    change = change_of(measured, expected)
    return verdict(
        _status(metric, measured - expected, tolerance * abs(expected) if expected else tolerance),
        measured=measured,
        expected=expected,
        change=change,
        tolerance=tolerance,
    )


def _allowed(metric: Metric, spread: float) -> float:
    """Return the relative tolerance, if the baseline's launches differed by ``spread``."""
    if spread <= 0:
        return metric.relative
    return max(metric.relative, SPREADS_ALLOWED * spread, JITTER)


def _spreads(baseline: MetricBaseline) -> list[float]:
    """Return the spread of each step, so that steps with equal launches keep the strict limit."""
    launches = [_series(launch) for launch in baseline.launches]
    return [
        spread(own, column)
        for own, column in zip(_series(baseline.value), zip(*launches, strict=False), strict=False)
    ]


def compare_series(
    cell: Cell,
    metric: Metric,
    measured: tuple[float, ...],
    expected: tuple[float, ...],
    limits: float | Sequence[float],
) -> Verdict:
    """Compare step by step, relative to the expected values, with one limit per step or one for all."""
    if isinstance(limits, float):
        limits = [limits] * len(expected)
    if len(measured) != len(expected) or not measured:
        return Verdict(
            cell=cell,
            metric=metric.name,
            status="regressed",
            unit="steps",
            measured=len(measured),
            expected=len(expected),
            change=change_of(len(measured), len(expected)),
            tolerance=0.0,
            note="another number of optimizer steps",
        )
    step, worst = worst_step(measured, expected, limits, absolute=metric.absolute)
    return Verdict(
        cell=cell,
        metric=metric.name,
        # A NaN deviates by NaN, which is within no limit.
        status="ok" if abs(worst) <= limits[step] else "regressed",
        unit=metric.unit,
        measured=measured[step],
        expected=expected[step],
        change=worst,
        tolerance=limits[step],
        step=step,
    )


def worst_step(
    measured: tuple[float, ...],
    expected: tuple[float, ...],
    limits: Sequence[float],
    *,
    absolute: float = 0.0,
) -> tuple[int, float]:
    """Return the step that is furthest beyond its limit, or nearest to it, and its relative change.

    Differences up to ``absolute`` count as 0. A NaN is worse than any number.
    """
    changes = [
        0.0 if abs(own - other) <= absolute else change_of(own, other)
        for own, other in zip(measured, expected, strict=True)
    ]
    for step, change in enumerate(changes):
        if math.isnan(change):
            return step, change
    step = max(range(len(changes)), key=lambda index: abs(changes[index]) - limits[index])
    return step, changes[step]


def _status(metric: Metric, difference: float, limit: float) -> Status:
    if math.isnan(difference):
        return "regressed"
    # A change equal to the limit is within it, even with the rounding error of 0.8 - 0.76.
    if abs(difference) <= limit * (1 + 1e-9):
        return "ok"
    if metric.better == "equal":
        return "regressed"
    worse = difference > 0 if metric.better == "lower" else difference < 0
    return "regressed" if worse else "improved"


def _tolerance(expected: float, relative: float, absolute: float) -> float:
    """Return the limit relative to ``expected``; if that is 0, the absolute one."""
    return max(relative, absolute / abs(expected)) if expected else absolute


def change_of(measured: float, expected: float) -> float:
    """Return the change relative to ``expected``; infinite if only ``expected`` is 0."""
    if measured == expected:
        return 0.0
    return (measured - expected) / abs(expected) if expected else float("inf")


def _series(value: Value) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (float(value),)
