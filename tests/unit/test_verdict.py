"""Judging: what is a regression, what an improvement, what no comparison at all."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from records import a_cell

from zerogate.metrics.aggregation import Value
from zerogate.metrics.table import METRICS, Metric
from zerogate.verdicts.baselines import MetricBaseline
from zerogate.verdicts.verdict import (
    Verdict,
    compare,
    worst_step,
)

NAN, INFINITY = math.nan, math.inf


def a_metric(**changes: Any) -> Metric:
    values = {
        "name": "a_number",
        "unit": "units",
        "better": "lower",
        "scope": "portable",
        "title": "a number",
    }
    return Metric(**(values | changes))


def judged(metric: Metric, measured: Value | None, expected: Value, spread: float = 0.0) -> Verdict:
    baseline = MetricBaseline(value=expected, spread=spread, launches=(expected,))
    return compare(a_cell(), metric, measured, baseline)


# One number

STATUSES = [
    pytest.param("lower", 100, "ok", id="lower is better, equal"),
    pytest.param("lower", 125, "ok", id="lower is better, at the limit"),
    pytest.param("lower", 126, "regressed", id="lower is better, just over"),
    pytest.param("lower", 75, "ok", id="lower is better, at the other limit"),
    pytest.param("lower", 74, "improved", id="lower is better, much lower"),
    pytest.param("higher", 100, "ok", id="higher is better, equal"),
    pytest.param("higher", 75, "ok", id="higher is better, at the limit"),
    pytest.param("higher", 74, "regressed", id="higher is better, just under"),
    pytest.param("higher", 125, "ok", id="higher is better, at the other limit"),
    pytest.param("higher", 126, "improved", id="higher is better, much higher"),
    pytest.param("equal", 100, "ok", id="equal, equal"),
    pytest.param("equal", 125, "ok", id="equal, at the limit"),
    pytest.param("equal", 126, "regressed", id="equal, just over"),
    pytest.param("equal", 74, "regressed", id="equal, just under"),
    pytest.param("lower", NAN, "regressed", id="lower is better, NaN"),
    pytest.param("higher", NAN, "regressed", id="higher is better, NaN"),
    pytest.param("equal", NAN, "regressed", id="equal, NaN"),
    pytest.param("lower", INFINITY, "regressed", id="lower is better, infinite"),
]


@pytest.mark.parametrize(("better", "measured", "status"), STATUSES)
def test_relative_tolerance_decides_status(better: str, measured: float, status: str) -> None:
    assert judged(a_metric(better=better, relative=0.25), measured, 100).status == status


@pytest.mark.parametrize(("better", "measured", "status"), STATUSES)
def test_absolute_tolerance_decides_status(better: str, measured: float, status: str) -> None:
    assert judged(a_metric(better=better, absolute=25.0), measured, 100).status == status


@pytest.mark.parametrize(("better", "measured", "status"), STATUSES)
def test_negative_baseline_is_judged_like_positive_one(
    better: str, measured: float, status: str
) -> None:
    assert judged(a_metric(better=better, absolute=25.0), measured - 200, -100).status == status


@pytest.mark.parametrize(
    ("measured", "status"),
    [(999, "improved"), (1000, "ok"), (1001, "regressed")],
)
def test_metric_without_tolerance_changes_status_by_one_byte(measured: int, status: str) -> None:
    assert judged(a_metric(), measured, 1000).status == status


def test_larger_of_relative_and_absolute_tolerance_applies() -> None:
    metric = a_metric(relative=0.1, absolute=5.0)
    assert judged(metric, 110, 100).status == "ok"
    assert judged(metric, 14, 10).status == "ok"
    assert judged(metric, 16, 10).status == "regressed"


def test_verdict_contains_numbers_change_and_tolerance() -> None:
    found = judged(a_metric(relative=0.1, absolute=20.0), 150, 100)
    assert (found.cell, found.metric, found.unit) == (a_cell(), "a_number", "units")
    assert (found.measured, found.expected) == (150, 100)
    assert (found.change, found.tolerance, found.step) == (0.5, 0.2, None)


def test_change_is_negative_if_value_decreases() -> None:
    assert judged(a_metric(), 50, 100).change == -0.5
    assert judged(a_metric(), -150, -100).change == -0.5


@pytest.mark.parametrize(
    ("absolute", "measured", "status"),
    [
        pytest.param(0.0, 0, "ok", id="still zero"),
        pytest.param(0.0, 1, "regressed", id="no longer"),
        pytest.param(2.0, 2, "ok", id="within the absolute tolerance"),
        pytest.param(2.0, 3, "regressed", id="over it"),
        pytest.param(2.0, -3, "improved", id="better by more than it"),
    ],
)
def test_baseline_of_zero_uses_absolute_tolerance(
    absolute: float, measured: float, status: str
) -> None:
    assert judged(a_metric(relative=0.5, absolute=absolute), measured, 0).status == status


@pytest.mark.parametrize(
    ("spread", "measured", "status"),
    [
        pytest.param(0.0, 131, "regressed", id="none: the metric's own tolerance"),
        pytest.param(0.125, 137, "ok", id="three spreads are more than the tolerance"),
        pytest.param(0.125, 138, "regressed", id="but no more than that"),
        pytest.param(0.01, 130, "ok", id="a small one does not narrow the tolerance"),
    ],
)
def test_baseline_spread_widens_tolerance(spread: float, measured: float, status: str) -> None:
    assert judged(a_metric(relative=0.3), measured, 100, spread).status == status


@pytest.mark.parametrize(
    ("spread", "measured", "status"),
    [
        pytest.param(0.0, 100_001, "regressed", id="exact: not one more"),
        pytest.param(1e-6, 100_100, "ok", id="it jitters: a thousandth"),
        pytest.param(1e-6, 100_101, "regressed", id="it jitters: more than a thousandth"),
    ],
)
def test_exact_metric_with_spread_tolerates_one_thousandth(
    spread: float, measured: int, status: str
) -> None:
    assert judged(a_metric(relative=0.0), measured, 100_000, spread).status == status


def test_verdict_without_baseline_keeps_measured_value() -> None:
    found = compare(a_cell(), a_metric(), 7, None)
    assert (found.status, found.measured, found.expected) == ("no_baseline", 7, None)
    assert compare(a_cell(), a_metric(series=True), (7.0,), None).status == "no_baseline"


def test_unmeasured_metric_is_not_comparable() -> None:
    assert judged(a_metric(), None, 100).status == "not_comparable"


# A series

SERIES = a_metric(better="equal", relative=0.125, series=True)
EXPECTED = (8.0, 4.0, 2.0, 1.0)


@pytest.mark.parametrize(
    ("measured", "status", "step", "change"),
    [
        pytest.param(EXPECTED, "ok", 0, 0.0, id="equal"),
        pytest.param((8.0, 4.5, 2.0, 1.0), "ok", 1, 0.125, id="at the limit"),
        pytest.param((8.0, 4.0, 2.0, 1.25), "regressed", 3, 0.25, id="over, at the last step"),
        pytest.param((6.0, 4.0, 2.5, 1.0), "regressed", 0, -0.25, id="under is no better"),
        pytest.param((8.0, 5.0, 3.0, 1.25), "regressed", 2, 0.5, id="the worst of several"),
    ],
)
def test_series_is_judged_by_worst_step(
    measured: tuple[float, ...], status: str, step: int, change: float
) -> None:
    found = judged(SERIES, measured, EXPECTED)
    assert (found.status, found.step, found.change) == (status, step, change)
    assert (found.measured, found.expected) == (measured[step], EXPECTED[step])
    assert found.tolerance == 0.125


@pytest.mark.parametrize(
    ("measured", "step"),
    [
        pytest.param((8.0, 4.0, NAN, 1.0), 2, id="alone"),
        pytest.param((80.0, 4.0, NAN, NAN), 2, id="worse than a tenfold value"),
        pytest.param((INFINITY, 4.0, 2.0, NAN), 3, id="worse than infinity"),
    ],
)
def test_first_nan_in_series_is_worst_step(measured: tuple[float, ...], step: int) -> None:
    found = judged(SERIES, measured, EXPECTED)
    assert (found.status, found.step) == ("regressed", step)


def test_nan_in_baseline_series_is_regression() -> None:
    assert judged(SERIES, (1.0, 1.0), (1.0, NAN)).status == "regressed"


@pytest.mark.parametrize("measured", [(8.0, 4.0, 2.0), (8.0, 4.0, 2.0, 1.0, 0.5), ()])
def test_series_of_other_length_is_regression_in_steps(measured: tuple[float, ...]) -> None:
    found = judged(SERIES, measured, EXPECTED)
    assert (found.status, found.unit) == ("regressed", "steps")
    assert (found.measured, found.expected) == (len(measured), 4)
    assert "number of optimizer steps" in found.note


def test_number_against_series_baseline_is_regression() -> None:
    assert judged(SERIES, 8.0, EXPECTED).status == "regressed"


@pytest.mark.parametrize(
    ("measured", "status", "step"),
    [
        pytest.param((8.0, 4.0, 2.0, 1.3), "ok", 3, id="where launches differed"),
        pytest.param((8.0, 4.0, 2.0, 1.5), "regressed", 3, id="more than they did"),
        pytest.param((8.0, 4.0, 2.5, 1.0), "regressed", 2, id="where they did not differ"),
    ],
)
def test_step_spread_widens_tolerance_of_that_step(
    measured: tuple[float, ...], status: str, step: int
) -> None:
    launches = (EXPECTED, (8.0, 4.0, 2.0, 1.125), (8.0, 4.0, 2.0, 0.875))
    baseline = MetricBaseline(value=EXPECTED, spread=0.125, launches=launches)
    found = compare(a_cell(), SERIES, measured, baseline)
    assert (found.status, found.step) == (status, step)


def test_gpu_tier_has_own_memory_tolerance() -> None:
    peak = METRICS["peak_allocated_bytes"]
    baseline = MetricBaseline(value=30 * 10**9, spread=0.0, launches=(30 * 10**9,))
    block_more = 30 * 10**9 + 512
    assert compare(a_cell(), peak, block_more, baseline).status == "regressed"
    assert compare(a_cell(tier="gpu"), peak, block_more, baseline).status == "ok"
    assert compare(a_cell(tier="gpu"), peak, 31 * 10**9, baseline).status == "regressed"


@pytest.mark.parametrize(
    ("measured", "status"),
    [
        pytest.param((0.0, 1.0), "ok", id="zero and zero"),
        pytest.param((1e-9, 1.0), "ok", id="within the absolute tolerance"),
        pytest.param((1e-3, 1.0), "regressed", id="no longer zero"),
    ],
)
def test_series_step_at_zero_uses_absolute_tolerance(
    measured: tuple[float, ...], status: str
) -> None:
    metric = replace(SERIES, absolute=1e-9)
    assert judged(metric, measured, (0.0, 1.0)).status == status


def test_worst_step_ignores_differences_within_absolute_tolerance() -> None:
    assert worst_step((1.0, 11.0), (0.5, 10.0), (0.0, 0.0), absolute=0.5) == (1, 0.1)


def test_verdict_as_dict_is_flat() -> None:
    values = judged(a_metric(), 150, 100).as_dict()
    assert (values["workload"], values["strategy"]) == ("deberta_mrpc", "zero2")
    assert (values["metric"], values["measured"], values["expected"]) == ("a_number", 150, 100)
    assert not any(isinstance(value, dict) for value in values.values())
