"""Judging without a metric's baseline, and whether there is a comparison at all."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from records import PROVENANCE, RECIPE, a_cell, a_measurement, a_record, measured

from zerogate.metrics.measurement import Measurement
from zerogate.metrics.table import metric_named
from zerogate.verdicts.baselines import of_measurement
from zerogate.verdicts.comparability import (
    other_hardware,
    other_host,
    other_settings,
    other_skipped_steps,
    other_speed,
    quality_of_generated_data,
)
from zerogate.verdicts.invariants import judge_learned, judge_same

NAN = math.nan

# Comparable at all


RECORDED = replace(PROVENANCE, canary_seconds=0.010)


def test_equal_settings_are_comparable() -> None:
    assert other_settings(a_measurement(), of_measurement(a_measurement(), RECORDED)) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"workload_version": 2}, ["workload_version: 1 -> 2"], id="workload"),
        pytest.param({"data_origin": "real"}, ["data_origin: generated -> real"], id="data"),
        pytest.param({"memory_source": "other"}, ["device: emulated -> other"], id="device"),
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
    why = other_settings(a_measurement(**changes), of_measurement(a_measurement(), RECORDED))
    assert all(word in why for word in words)
    assert why.count("->") == len(words)


def test_baseline_without_device_is_of_other_settings() -> None:
    """Recorded where the memory of the host was the device's."""
    recorded = of_measurement(a_measurement(), RECORDED)
    settings = {name: value for name, value in recorded.settings.items() if name != "device"}
    why = other_settings(a_measurement(), replace(recorded, settings=settings))
    assert "device: None -> emulated" in why
    assert why.count("->") == 1


def test_other_software_is_comparable() -> None:
    newer = a_measurement(environment={"torch": "2.14.0"})
    assert other_settings(newer, of_measurement(a_measurement(), RECORDED)) == ""


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
def test_seconds_at_other_canary_speed_are_not_comparable(
    canary_seconds: float, invalid: bool
) -> None:
    recorded = of_measurement(a_measurement(), RECORDED)
    found = other_speed(a_measurement(canary_seconds=canary_seconds), recorded)
    assert bool(found) == invalid
    if found:
        assert f"{canary_seconds * 1e3:.2f} ms" in found
        assert "10.00 ms" in found


def test_baseline_of_other_machine_names_both_machines() -> None:
    recorded = of_measurement(a_measurement(), RECORDED)
    assert other_hardware(recorded, "amd-epyc-2c") == ""
    assert other_hardware(recorded, "intel-xeon-8c") == (
        "recorded on amd-epyc-2c, this is intel-xeon-8c"
    )


# On cards

CARD = a_cell(tier="gpu")


@pytest.mark.parametrize(
    ("trained", "origin", "metric", "judged"),
    [
        pytest.param(CARD, "generated", "f1", False, id="full size, generated data"),
        pytest.param(CARD, "real", "f1", True, id="real data"),
        pytest.param(a_cell(), "generated", "f1", True, id="scale model"),
        pytest.param(CARD, "generated", "loss", True, id="no quality"),
    ],
)
def test_full_size_quality_on_generated_data_is_not_judged(
    trained: Any, origin: str, metric: str, judged: bool
) -> None:
    own = a_measurement(trained, data_origin=origin)
    assert (quality_of_generated_data(own, metric_named(metric)) == "") == judged


A, B = (), (1,)
"""Steps that a launch skipped."""


def scaled(*launches: tuple[int, ...]) -> Measurement:
    """Launches that skipped those steps."""
    return measured(
        *(
            [
                a_record(
                    rank,
                    gradient_norm=tuple(0.0 if step in skipped else 1.0 for step in range(6)),
                    step_skipped=tuple(step in skipped for step in range(6)),
                )
                for rank in (0, 1)
            ]
            for skipped in launches
        ),
        cell=CARD,
    )


@pytest.mark.parametrize(
    ("recorded", "ours", "same"),
    [
        pytest.param((A,), (A,), True, id="none"),
        pytest.param((B, B, B), (B,), True, id="the same"),
        pytest.param((A,), (B,), False, id="one more"),
        pytest.param((B,), (A,), False, id="none now"),
        pytest.param((B, B, A), (A,), False, id="recorded with both: their median is neither's"),
        pytest.param((A, A, A), (A, B, B), False, id="measured with both"),
    ],
)
def test_launches_with_other_skipped_steps_are_not_comparable(
    recorded: tuple[tuple[int, ...], ...], ours: tuple[tuple[int, ...], ...], same: bool
) -> None:
    why = other_skipped_steps(scaled(*ours), of_measurement(scaled(*recorded), RECORDED))
    assert (why == "") == same


def test_zero_gradient_norm_is_not_counted_as_skipped_step() -> None:
    gone = a_measurement(CARD, gradient_norm=(0.0,) * 6, step_skipped=(False,) * 6)
    assert other_skipped_steps(gone, of_measurement(a_measurement(CARD), RECORDED)) == ""


def test_gpu_baseline_of_other_host_names_both_hosts() -> None:
    software = RECORDED.software | {"host": "amd-epyc-2c"}
    recorded = of_measurement(a_measurement(CARD), replace(RECORDED, software=software))
    assert other_host(recorded, "amd-epyc-2c") == ""
    assert other_host(recorded, "intel-xeon-8c") == (
        "recorded on a card of amd-epyc-2c, this is of intel-xeon-8c"
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
def test_parity_compares_series_with_other_strategy(losses: tuple[float, ...], status: str) -> None:
    found = judge_same(
        metric_named("loss"), of_losses("zero2", *losses), of_losses("ddp", 1.0, 2.0)
    )
    assert (found.status, found.metric, found.cell) == (status, "loss_parity", a_cell("zero2"))


def test_parity_limit_of_caller_replaces_limit_of_metric() -> None:
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
def test_quality_worse_than_learned_level_is_regression(
    name: str, learned: float, value: float, status: str
) -> None:
    found = a_measurement(quality_learned={name: learned}, quality={name: value})
    verdict = judge_learned(found, metric_named(name))
    assert (verdict.status, verdict.metric) == (status, f"{name}_learned")
    assert verdict.expected == learned
    assert bool(verdict.note) == (status == "regressed")
