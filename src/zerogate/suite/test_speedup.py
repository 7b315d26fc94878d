"""Speedup over the session's own DDP, at equal micro-batch size."""

import pytest


@pytest.mark.compared_with("ddp")
def test_speedup(gate, other):
    gate("speedup_over_ddp")
