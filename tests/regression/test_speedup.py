"""Speedup over the session's own DDP, at equal micro-batch size."""

import pytest


@pytest.mark.against_ddp
def test_speedup(gate, ddp):
    gate("speedup_over_ddp")
