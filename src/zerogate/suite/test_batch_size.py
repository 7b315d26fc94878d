"""Batch size: the largest that fits each rank's device memory, exact and certified."""

import pytest


@pytest.mark.batch_size("train")
@pytest.mark.parametrize(
    "metric",
    [
        "max_micro_batch_size",
        "batch_base_bytes",
        "batch_bytes_per_sample",
        "samples_per_second_at_max",
    ],
)
def test_max_micro_batch_size(gate, batch_size, metric):
    gate(metric)


@pytest.mark.batch_size("eval")
@pytest.mark.parametrize(
    "metric",
    [
        "max_eval_batch_size",
        "eval_batch_base_bytes",
        "eval_batch_bytes_per_sample",
        "eval_samples_per_second_at_max",
    ],
)
def test_max_eval_batch_size(gate, batch_size, metric):
    gate(metric)


@pytest.mark.batch_size("train")
@pytest.mark.compared_with("ddp")
def test_speedup_at_max(gate, batch_size):
    gate("speedup_over_ddp_at_max")


@pytest.mark.batch_size("train")
@pytest.mark.published("max_micro_batch_size")
def test_published_micro_batch_size(gate, batch_size):
    gate.published("max_micro_batch_size")


@pytest.mark.batch_size("eval")
@pytest.mark.published("max_eval_batch_size")
def test_published_eval_batch_size(gate, batch_size):
    gate.published("max_eval_batch_size")
