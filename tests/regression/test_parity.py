"""Parity: every strategy computes what DDP computes, so its losses and norms are DDP's."""

import pytest


@pytest.mark.against_ddp
@pytest.mark.parametrize("metric", ["loss", "gradient_norm"])
def test_parity_with_ddp(gate, ddp, metric):
    gate.same_as("ddp", metric)


@pytest.mark.strategies("zero2_config_file")
@pytest.mark.parametrize("metric", ["loss", "gradient_norm", "learning_rate"])
def test_config_file_equals_plugin_fields(gate, metric):
    gate.same_as("zero2", metric, limit=1e-6)
