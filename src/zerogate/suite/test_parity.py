"""Parity: every strategy computes what DDP computes, so its losses and norms are DDP's.

In fp32 and without dropout, which is how the cpu tier trains. At full size each strategy draws its
dropout and rounds to half precision in its own way, and equal numbers would be a coincidence.
"""

import pytest

pytestmark = pytest.mark.tiers("cpu")


@pytest.mark.compared_with("ddp")
@pytest.mark.parametrize("metric", ["loss", "gradient_norm", "learning_rate"])
def test_parity_with_ddp(gate, other, metric):
    gate.same_as(other, metric)


@pytest.mark.compared_with("zero2")
@pytest.mark.strategies("zero2_config_file")
@pytest.mark.parametrize("metric", ["loss", "gradient_norm", "learning_rate"])
def test_config_file_equals_plugin_fields(gate, other, metric):
    gate.same_as(other, metric, limit=1e-6)
