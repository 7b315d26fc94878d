"""Judging without a metric's baseline, and whether there is a comparison at all."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from records import PROVENANCE, RECIPE, a_cell, a_measurement

from zerogate.baseline import of_measurement
from zerogate.invariant import judge_learned, judge_same
from zerogate.measurement import Measurement
from zerogate.metric import metric_named
from zerogate.verdict import comparable, same_hardware, same_speed

NAN = math.nan

# Comparable at all


RECORDED = replace(PROVENANCE, canary_seconds=0.010)


def test_equal_settings_are_comparable() -> None:
    assert comparable(a_measurement(), of_measurement(a_measurement(), RECORDED)) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"workload_version": 2}, ["workload_version: 1 -> 2"], id="workload"),
        pytest.param({"data_origin": "real"}, ["data_origin: generated -> real"], id="data"),
        pytest.param({"applied": {"dtype": "float16"}}, ["dtype: float32 -> float16"], id="dtype"),
        pytest.param(
            {"recipe": replace(RECIPE, micro_batch_size=4, epochs=1)},
            ["micro_batch_size: 8 -> 4", "epochs: 2 -> 1"],
            id="recipe",
        ),
    ],
)
def test_other_settings_are_not_comparable_and_are_named(
    changes: dict[str, Any], words: list[str]
) -> None:
    why = comparable(a_measurement(**changes), of_measurement(a_measurement(), RECORDED))
    assert all(word in why for word in words)
    assert why.count("->") == len(words)


def test_other_software_is_comparable() -> None:
    newer = a_measurement(environment={"torch": "2.14.0"})
    assert comparable(newer, of_measurement(a_measurement(), RECORDED)) == ""


@pytest.mark.parametrize(
    ("canary_seconds", "invalid"),
    [
        pytest.param(0.0100, False, id="as fast"),
        pytest.param(0.0114, False, id="a little slower"),
        pytest.param(0.0086, False, id="a little faster"),
        pytest.param(0.0121, True, id="slower"),
        pytest.param(0.0079, True, id="faster"),
    ],
)
def test_seconds_are_only_compared_at_the_recorded_speed(
    canary_seconds: float, invalid: bool
) -> None:
    recorded = of_measurement(a_measurement(), RECORDED)
    found = same_speed(a_measurement(canary_seconds=canary_seconds), recorded)
    assert bool(found) == invalid
    if found:
        assert f"{canary_seconds * 1e3:.2f} ms" in found
        assert "10.00 ms" in found


def test_another_machine_is_named() -> None:
    recorded = of_measurement(a_measurement(), RECORDED)
    assert same_hardware(recorded, "amd-epyc-2c") == ""
    assert same_hardware(recorded, "intel-xeon-8c") == (
        "recorded on amd-epyc-2c, this is intel-xeon-8c"
    )


# Without a baseline


def of_losses(strategy: str, *losses: float) -> Measurement:
    return a_measurement(a_cell(strategy), loss=losses)


@pytest.mark.parametrize(
    ("losses", "status"),
    [
        pytest.param((1.0, 2.0), "ok", id="equal"),
        pytest.param((1.0, 2.0005), "ok", id="within the limit"),
        pytest.param((1.0, 2.01), "regressed", id="over the limit"),
        pytest.param((1.0, 1.99), "regressed", id="lower is no better"),
        pytest.param((1.0, NAN), "regressed", id="NaN"),
        pytest.param((1.0,), "regressed", id="fewer steps"),
    ],
)
def test_parity_holds_a_series_to_another_strategys(losses: tuple[float, ...], status: str) -> None:
    found = judge_same(
        metric_named("loss"), of_losses("zero2", *losses), of_losses("ddp", 1.0, 2.0)
    )
    assert (found.status, found.metric, found.cell) == (status, "loss_parity", a_cell("zero2"))


def test_the_limit_of_parity_is_the_callers_not_the_metrics() -> None:
    own, other = of_losses("zero2", 1.01), of_losses("ddp", 1.0)
    assert judge_same(metric_named("loss"), own, other).status == "regressed"
    assert judge_same(metric_named("loss"), own, other, limit=0.02).status == "ok"


@pytest.mark.parametrize(
    ("name", "learned", "value", "status"),
    [
        pytest.param("f1", 0.7, 0.7, "ok", id="higher is better, reached"),
        pytest.param("f1", 0.7, 0.69, "regressed", id="higher is better, not reached"),
        pytest.param("perplexity", 20.0, 20.0, "ok", id="lower is better, reached"),
        pytest.param("perplexity", 20.0, 20.1, "regressed", id="lower is better, not reached"),
        pytest.param("f1", 0.7, NAN, "regressed", id="higher is better, NaN"),
        pytest.param("perplexity", 20.0, NAN, "regressed", id="lower is better, NaN"),
    ],
)
def test_a_model_that_did_not_learn_is_a_regression(
    name: str, learned: float, value: float, status: str
) -> None:
    found = a_measurement(quality_learned={name: learned}, quality={name: value})
    verdict = judge_learned(found, metric_named(name))
    assert (verdict.status, verdict.metric) == (status, f"{name}_learned")
    assert verdict.expected == learned
    assert bool(verdict.note) == (status == "regressed")
