"""Time: judged only on the hardware that the baseline was recorded on, reported everywhere."""

import pytest


@pytest.mark.parametrize(
    "metric", ["epoch_seconds", "step_seconds", "eval_seconds", "samples_per_second"]
)
def test_time(gate, metric):
    gate(metric)


@pytest.mark.tiers("gpu")
def test_utilization(gate):
    gate("mfu")
