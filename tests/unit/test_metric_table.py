"""The metric table, and the metrics that a workload brings along."""

from __future__ import annotations

import pytest

from zerogate.metrics.table import METRICS, metric_named


def test_metric_named_returns_metric_of_that_name() -> None:
    assert all(metric_named(name).name == name for name in METRICS)


def test_scope_is_portable_for_bytes_and_hardware_for_seconds() -> None:
    assert metric_named("peak_allocated_bytes").scope == "portable"
    assert metric_named("epoch_seconds").scope == "hardware"


def test_tolerance_is_zero_for_bytes_and_positive_for_seconds() -> None:
    assert metric_named("epoch_seconds").relative > 0
    assert metric_named("peak_allocated_bytes").relative == 0
    assert metric_named("peak_allocated_bytes").absolute == 0


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_workload_metric_takes_direction_from_workload(better: str) -> None:
    metric = metric_named("rouge_l", {"rouge_l": better})
    assert (metric.name, metric.better, metric.title) == ("rouge_l", better, "rouge l")
    assert metric.scope == "portable"
    assert 0 < metric.relative < 0.1


def test_table_metric_overrides_workload_metric() -> None:
    assert metric_named("f1", {"f1": "lower"}).better == "higher"


@pytest.mark.parametrize(
    "quality_better",
    [
        pytest.param(None, id="no workload"),
        pytest.param({}, id="no metrics"),
        pytest.param({"bleu_4": "higher"}, id="another metric"),
        pytest.param({"rouge_l": "up"}, id="no such direction"),
    ],
)
def test_unknown_metric_name_raises_key_error(quality_better: dict[str, str] | None) -> None:
    with pytest.raises(KeyError, match="rouge_l"):
        metric_named("rouge_l", quality_better)
