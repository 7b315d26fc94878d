"""Judging: values in, verdicts out. No clock, no files, no pytest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from zerogate.aggregation import Value
from zerogate.baseline import CellBaseline, MetricBaseline, spread
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
        return judge_series(cell, metric, _series(measured), _series(baseline.value), limits)
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


def judge_series(
    cell: Cell,
    metric: Metric,
    measured: tuple[float, ...],
    expected: tuple[float, ...],
    limits: float | Sequence[float],
) -> Verdict:
    """Hold each step to its own of ``limits``, or all to one, relative to what is expected there."""
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


def comparable(measurement: Measurement, baseline: CellBaseline) -> str:
    """Why the two cannot be compared at all; empty when they can."""
    differing = differing_settings(measurement.settings, baseline.settings)
    return f"the baseline is of other settings ({'; '.join(differing)})" if differing else ""


def same_hardware(baseline: CellBaseline, hardware: str) -> str:
    """Why what depends on the hardware cannot be held to the baseline; empty when it can."""
    recorded = baseline.provenance.hardware
    return "" if recorded == hardware else f"recorded on {recorded}, this is {hardware}"


def taught(measurement: Measurement, metric: Metric) -> str:
    """Why quality says nothing of the stack; empty where it does."""
    full_size = measurement.cell.tier == "gpu"
    if not (full_size and metric.name in measurement.quality_better):
        return ""
    if measurement.settings["data_origin"] != "generated":
        return ""
    return "generated data teach a full-size model nothing in so few steps; see --data-dir"


def alone(measurement: Measurement) -> str:
    """Why batch sizes say nothing of the stack; empty where they do."""
    if not measurement.probe_strangers:
        return ""
    pids = ", ".join(map(str, measurement.probe_strangers))
    return f"sizes not judged: process {pids} was on the device too"


def same_steps(measurement: Measurement, baseline: CellBaseline) -> str:
    """Why series are not of the same optimizer steps: loss scaling skips one where it overflows, with a
    norm of 0, and all that follows is then of other weights. Empty where they are.
    """
    norms = baseline.metrics.get("gradient_norm")
    if norms is None or not measurement.launches:
        return ""
    ours = {_steps(launch.skipped) for launch in measurement.launches}
    theirs = {_steps(norm == 0 for norm in _series(launch)) for launch in norms.launches}
    if ours == theirs and len(ours) == 1:
        return ""
    own, recorded = (" or ".join(sorted(map(_named, steps))) for steps in (ours, theirs))
    return f"loss scaling skipped other steps ({own}) than when recorded ({recorded})"


def _steps(holds: Iterable[bool]) -> tuple[int, ...]:
    return tuple(step for step, one in enumerate(holds) if one)


def _named(steps: tuple[int, ...]) -> str:
    return ", ".join(map(str, steps)) or "none"


def same_host(baseline: CellBaseline, host: str) -> str:
    """Why seconds of a card are not held to the baseline's: a card's host has a part in them."""
    recorded = baseline.provenance.software.get("host", host)
    return "" if recorded == host else f"recorded on a card of {recorded}, this is of {host}"


def undisturbed(measurement: Measurement) -> str:
    """What happened to the devices that makes seconds worthless; empty where nothing did."""
    if not measurement.troubles:
        return ""
    return f"seconds not judged: {'; '.join(dict.fromkeys(measurement.troubles))}"


def same_speed(measurement: Measurement, baseline: CellBaseline) -> str:
    """Why seconds say nothing of the stack, on the same hardware; empty when they do."""
    recorded = baseline.provenance
    if why := undisturbed(measurement):
        return why
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
