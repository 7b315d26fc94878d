"""Judging: values in, verdicts out. No clock, no files, no pytest."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from zerogate.aggregation import Value
from zerogate.baseline import CellBaseline, MetricBaseline
from zerogate.cell import Cell
from zerogate.measurement import Measurement, differing_settings
from zerogate.metric import Metric

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

CANARY_LIMIT = 0.2
"""A core this much slower or faster than at recording cannot be held to the recorded seconds."""


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


def judge(
    cell: Cell, metric: Metric, measured: Value | None, baseline: MetricBaseline | None
) -> Verdict:
    """Hold one measured value to its baseline; both are known to be comparable."""

    def verdict(status: Status, **values: Any) -> Verdict:
        return Verdict(cell=cell, metric=metric.name, status=status, unit=metric.unit, **values)

    if measured is None:
        return verdict("not_comparable", note="not measured here")
    if baseline is None:
        number = None if isinstance(measured, tuple) else measured
        return verdict("no_baseline", measured=number, note="no baseline of this metric")
    allowed = metric.relative
    if baseline.spread > 0:
        allowed = max(allowed, SPREADS_ALLOWED * baseline.spread, JITTER)
    if isinstance(measured, tuple) or isinstance(baseline.value, tuple):
        return judge_series(cell, metric, _series(measured), _series(baseline.value), allowed)
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


def judge_series(
    cell: Cell,
    metric: Metric,
    measured: tuple[float, ...],
    expected: tuple[float, ...],
    allowed: float,
) -> Verdict:
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
    step, worst = worst_step(measured, expected, absolute=metric.absolute)
    return Verdict(
        cell=cell,
        metric=metric.name,
        # A NaN deviates by NaN, which no limit admits.
        status="ok" if abs(worst) <= allowed else "regressed",
        unit=metric.unit,
        measured=measured[step],
        expected=expected[step],
        change=worst,
        tolerance=allowed,
        step=step,
    )


def worst_step(
    measured: tuple[float, ...], expected: tuple[float, ...], *, absolute: float = 0.0
) -> tuple[int, float]:
    """The step that deviates most from ``expected``, and its relative change.

    Differences up to ``absolute`` are none. A NaN is worse than any number.
    """
    changes = [
        0.0 if abs(own - other) <= absolute else change_of(own, other)
        for own, other in zip(measured, expected, strict=True)
    ]
    for step, change in enumerate(changes):
        if math.isnan(change):
            return step, change
    step = max(range(len(changes)), key=lambda index: abs(changes[index]))
    return step, changes[step]


def comparable(measurement: Measurement, baseline: CellBaseline) -> str:
    """Why the two cannot be compared at all; empty when they can."""
    differing = differing_settings(measurement.settings, baseline.settings)
    return f"the baseline is of other settings ({'; '.join(differing)})" if differing else ""


def same_hardware(baseline: CellBaseline, hardware: str) -> str:
    """Why what depends on the hardware cannot be held to the baseline; empty when it can."""
    recorded = baseline.provenance.hardware
    return "" if recorded == hardware else f"recorded on {recorded}, this is {hardware}"


def same_speed(measurement: Measurement, baseline: CellBaseline) -> str:
    """Why seconds say nothing of the stack, on the same hardware; empty when they do."""
    recorded = baseline.provenance
    if measurement.troubles:
        return f"seconds not judged: {'; '.join(dict.fromkeys(measurement.troubles))}"
    change = change_of(measurement.canary_seconds, recorded.canary_seconds)
    # It is the CPU's work; of cards NVML tells.
    if measurement.cell.tier == "gpu" or abs(change) <= CANARY_LIMIT:
        return ""
    return (
        f"seconds not judged: this machine is {_times(change)} than when the baseline was "
        f"recorded (a fixed piece of work takes {measurement.canary_seconds * 1e3:.2f} ms, then "
        f"{recorded.canary_seconds * 1e3:.2f} ms)"
    )


def _times(change: float) -> str:
    return (
        f"{1 + change:.1f} times slower" if change > 0 else f"{1 / (1 + change):.1f} times faster"
    )


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
