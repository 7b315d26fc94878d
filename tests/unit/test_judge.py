"""Verdicts from evidence alone: no session, no launch, no file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from records import PROVENANCE, a_cell, a_measurement

from zerogate.metrics.measurement import SPEEDUP, SPEEDUP_AT_MAX, Measurement
from zerogate.metrics.table import METRICS, Metric
from zerogate.verdicts.baselines import CellBaseline, of_measurement, with_speedup
from zerogate.verdicts.evidence import Evidence, OtherEnvironment
from zerogate.verdicts.judge import compare_with_reference, judge_metric, needs_confirmation
from zerogate.verdicts.reference_results import ReferenceResults
from zerogate.verdicts.verdict import Verdict

HERE = PROVENANCE.hardware
HOT = ("rank 0: the device was throttled (hw_thermal)",)
DDP = a_cell("ddp")


def evidence(own: Measurement | None = None, **changes: Any) -> Evidence:
    """Evidence on a cell that measures what its baseline has, but for ``changes``."""
    own = own or a_measurement()
    values = {
        "own": own,
        "hardware": HERE,
        "host": HERE,
        "reference": a_measurement(replace(own.cell, strategy="ddp")),
        "baseline": baseline(replace(own.cell, strategy="zero2")),
    }
    return Evidence(**(values | changes))


def baseline(cell: Any = None) -> CellBaseline:
    found = of_measurement(
        a_measurement(cell, launches=3), replace(PROVENANCE, canary_seconds=0.01)
    )
    return with_speedup(found, SPEEDUP, (1.0, 1.0, 1.0))


def verdict(found: Evidence, name: str) -> Verdict:
    return judge_metric(found, METRICS[name])


def test_unchanged_measurement_is_ok() -> None:
    for name in ("peak_allocated_bytes", "loss", "epoch_seconds", SPEEDUP):
        assert verdict(evidence(), name).status == "ok", name


def test_changed_loss_is_regressed_with_both_numbers() -> None:
    found = verdict(evidence(a_measurement(loss=(0.7, 0.6, 0.5, 0.4, 0.3, 0.9))), "loss")
    assert (found.status, found.step, found.measured, found.expected) == ("regressed", 5, 0.9, 0.2)


def test_cell_without_baseline_has_no_baseline() -> None:
    assert verdict(evidence(baseline=None), "loss").status == "no_baseline"


def test_metric_without_value_is_not_comparable_with_its_note() -> None:
    own = replace(a_measurement(), notes={"mfu": "no card"})
    found = verdict(evidence(own), "mfu")
    assert (found.status, found.note) == ("not_comparable", "no card")


@pytest.mark.parametrize(
    ("changes", "metric", "status", "words"),
    [
        pytest.param(
            {"own": a_measurement(workload_version=2)}, "loss", "no_baseline",
            "workload_version: 1 -> 2", id="other settings",
        ),
        pytest.param(
            {"own": a_measurement(data_origin="real")}, "loss", "not_comparable",
            "data_origin: generated -> real", id="other data, by choice",
        ),
        pytest.param(
            {"hardware": "intel-xeon-8c"}, "epoch_seconds", "not_comparable",
            "recorded on amd-epyc-2c, this is intel-xeon-8c", id="other hardware",
        ),
        pytest.param(
            {"own": a_measurement(device_events=HOT)}, "epoch_seconds", "invalid",
            "throttled", id="throttled",
        ),
        pytest.param(
            {"own": a_measurement(canary_seconds=0.05)}, "epoch_seconds", "invalid",
            "5.0 times slower", id="slow machine",
        ),
        pytest.param(
            {"reference": a_measurement(DDP, device_events=HOT)}, SPEEDUP, "invalid",
            "DDP: seconds not judged", id="throttled DDP",
        ),
    ],
)  # fmt: skip
def test_incomparable_measurement_is_not_judged(
    changes: dict[str, Any], metric: str, status: str, words: str
) -> None:
    found = verdict(evidence(**changes), metric)
    assert found.status == status
    assert words in found.note


def test_bytes_of_throttled_device_are_judged_all_the_same() -> None:
    own = a_measurement(device_events=HOT)
    assert verdict(evidence(own), "peak_allocated_bytes").status == "ok"


def test_sizes_beside_other_process_are_invalid() -> None:
    sizes = {"max_micro_batch_size": 4, "batch_budget_bytes": 100}
    recorded = of_measurement(replace(a_measurement(), searched=sizes | {"max_micro_batch_size": 8}),
                              PROVENANCE)  # fmt: skip
    own = replace(a_measurement(), searched=sizes, probe_other_processes=(77,))
    found = verdict(evidence(own, baseline=recorded), "max_micro_batch_size")
    assert (found.status, found.note) == (
        "invalid",
        "sizes not judged: process 77 was on the device too",
    )
    alone = replace(own, probe_other_processes=())
    alone_found = verdict(evidence(alone, baseline=recorded), "max_micro_batch_size")
    assert alone_found.status == "regressed"
    other_budget = replace(alone, searched=sizes | {"batch_budget_bytes": 50})
    found = verdict(evidence(other_budget, baseline=recorded), "max_micro_batch_size")
    assert (found.status, found.note) == (
        "not_comparable",
        "recorded with a budget of 100 bytes, this is 50",
    )


def test_speedup_needs_the_reference() -> None:
    assert verdict(evidence(reference=None), SPEEDUP).status == "not_comparable"
    found = verdict(evidence(), SPEEDUP)
    assert found.note == "DDP 0.50 s an epoch, this 0.50 s"


def test_speedup_at_max_without_fitting_reference_says_why() -> None:
    own = replace(a_measurement(), searched={"samples_per_second_at_max": 10.0})
    found = verdict(evidence(own), SPEEDUP_AT_MAX)
    assert found.note == "DDP does not fit even one sample: there is nothing to be faster than"


# Another environment


def other(own: Measurement | None = None, **changes: Any) -> OtherEnvironment:
    values = {
        "name": "deepspeed 0.18.2",
        "repeats": 2,
        "own": own or a_measurement(launches=2),
        "reference": a_measurement(DDP, launches=2),
    }
    return OtherEnvironment(**(values | changes))


def test_other_environment_takes_precedence_over_baseline() -> None:
    found = verdict(evidence(baseline=None, other=other()), "live_bytes")
    assert (found.status, found.against) == ("ok", "deepspeed 0.18.2")


def test_bytes_above_other_environment_are_regressed() -> None:
    theirs = a_measurement(launches=2, step_live_bytes=(400,) * 6)
    own = a_measurement(launches=2, traced=None)
    assert verdict(evidence(own, other=other(theirs)), "loss").status == "ok"
    more = a_measurement(launches=2, peak_host_bytes=9000)
    found = verdict(evidence(more, other=other()), "peak_host_bytes")
    assert (found.status, found.measured, found.expected) == ("regressed", 9000, 5000)


def test_failure_of_other_environment_is_not_comparable() -> None:
    failed = OtherEnvironment(name="deepspeed 0.18.2", repeats=2, failure="crash: boom")
    found = verdict(evidence(other=failed), "loss")
    assert (found.status, found.note) == ("not_comparable", "deepspeed 0.18.2: crash: boom")


def seconds(*values: float) -> Measurement:
    launches = [a_measurement(train_seconds=(value, value)).launches[0] for value in values]
    return replace(a_measurement(), launches=tuple(launches))


@pytest.mark.parametrize(
    ("ours", "theirs", "status"),
    [
        pytest.param((1.0, 1.0, 1.01), (1.0, 1.01, 1.0), "ok", id="as fast"),
        pytest.param((1.5, 1.5, 1.51), (1.0, 1.0, 1.01), "regressed", id="slower"),
        pytest.param((1.0, 1.6, 0.9), (1.0, 1.0, 1.0), "invalid", id="nobody can tell"),
    ],
)
def test_seconds_are_compared_launch_by_launch(
    ours: tuple[float, ...], theirs: tuple[float, ...], status: str
) -> None:
    found = evidence(seconds(*ours), other=other(seconds(*theirs), repeats=3))
    assert verdict(found, "epoch_seconds").status == status


def test_launches_that_confirm_replace_those_that_seemed_slow() -> None:
    """The first two seemed slow; the four that were added are as fast as the others'."""
    own = seconds(2.0, 2.0, 1.0, 1.01, 1.0, 1.01)
    found = evidence(own, other=other(seconds(1.0, 1.0, 1.0, 1.0, 1.01, 1.0), repeats=2))
    assert verdict(found, "epoch_seconds").status == "ok"


# What others published, and confirmation


def test_reference_result_holds_on_its_own_hardware_alone() -> None:
    results = ReferenceResults(
        hardware=HERE, source="an article", workloads={"deberta_mrpc": {"zero2": {"f1": 0.9}}}
    )
    found = compare_with_reference(evidence(), "f1", results)
    assert (found.status, found.metric, found.against) == ("regressed", "f1_published", "published")
    elsewhere = compare_with_reference(evidence(hardware="titan-x2"), "f1", results)
    assert elsewhere.note == f"published for {HERE}, this is titan-x2"


@pytest.mark.parametrize(
    ("name", "tier", "status", "needs"),
    [
        ("epoch_seconds", "cpu", "regressed", True),
        ("epoch_seconds", "cpu", "ok", False),
        ("live_bytes", "cpu", "regressed", False),
        ("live_bytes", "gpu", "regressed", True),
        ("max_micro_batch_size", "gpu", "regressed", True),
        ("max_micro_batch_size", "cpu", "regressed", False),
        ("batch_base_bytes", "gpu", "regressed", False),
    ],
)
def test_regression_that_one_launch_cannot_prove_needs_confirmation(
    name: str, tier: Any, status: Any, needs: bool
) -> None:
    metric: Metric = METRICS[name]
    found = Verdict(cell=a_cell(tier=tier), metric=name, status=status, unit=metric.unit)
    assert needs_confirmation(found, metric) == needs
