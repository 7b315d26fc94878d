"""Judging: values in, verdicts out. No clock, no files, no pytest."""

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
"""How many times the baseline's own spread a change may be: three launches see a part of it."""

JITTER = 1e-3
"""What a metric may change at least whose baseline saw launches differ at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One metric of one cell, judged. Both numbers are here.

    ``change`` is relative to ``expected``, ``tolerance`` what it may be. For a series the numbers
    are those of ``step``, the one that deviates most. ``against`` is what ``expected`` is: the
    baseline's, another strategy's of this session, or what is ``needed``. ``note`` says why there is
    no comparison.
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
        """Flat, as it stands in results.json."""
        values = asdict(self)
        return {**values.pop("cell"), **values}


def compare(
    cell: Cell, metric: Metric, measured: Value | None, baseline: MetricBaseline | None
) -> Verdict:
    """Compare one measured value with its baseline; both are known to be comparable."""
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
    # Of 0 a spread is absolute (``baseline.spread``).
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
    """The relative change that is none, where launches of the baseline differed by ``spread``."""
    if spread <= 0:
        return metric.relative
    return max(metric.relative, SPREADS_ALLOWED * spread, JITTER)


def _spreads(baseline: MetricBaseline) -> list[float]:
    """Step by step: where launches agreed, later ones have to."""
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
    """Compare each step by its own of ``limits``, or all by one, relative to what is expected there."""
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
        # A NaN deviates by NaN, which no limit admits.
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
    """The step that is furthest beyond its limit, or least within it, and its relative change.

    Differences up to ``absolute`` are none. A NaN is worse than any number.
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
    # At the limit is within it, whatever binary fractions make of 0.8 - 0.76.
    if abs(difference) <= limit * (1 + 1e-9):
        return "ok"
    if metric.better == "equal":
        return "regressed"
    worse = difference > 0 if metric.better == "lower" else difference < 0
    return "regressed" if worse else "improved"


def _tolerance(expected: float, relative: float, absolute: float) -> float:
    """The limit, relative to ``expected``; of 0, the absolute one."""
    return max(relative, absolute / abs(expected)) if expected else absolute


def change_of(measured: float, expected: float) -> float:
    """Relative to ``expected``; infinite where that is 0."""
    if measured == expected:
        return 0.0
    return (measured - expected) / abs(expected) if expected else float("inf")


def _series(value: Value) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (float(value),)
