"""Numbers: the course of training, step by step, is what it was."""

import pytest


@pytest.mark.parametrize("metric", ["loss", "gradient_norm", "learning_rate", "samples_per_epoch"])
def test_training(gate, metric):
    gate(metric)
