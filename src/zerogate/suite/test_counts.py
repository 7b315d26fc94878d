"""Counts: collectives, operators and bytes moved in a step, exact; no clock is needed to see them."""

import pytest

from zerogate.protocol.record import COLLECTIVES


@pytest.mark.parametrize("kind", COLLECTIVES)
def test_collectives(gate, kind):
    gate(f"{kind}_calls", f"{kind}_payload_bytes")


@pytest.mark.parametrize("metric", ["operators", "flops", "disk_read_bytes", "disk_written_bytes"])
def test_counts(gate, metric):
    gate(metric)


@pytest.mark.tiers("cpu")
@pytest.mark.parametrize("metric", ["copied_to_device_bytes", "copied_to_host_bytes", "host_waits"])
def test_crossings(gate, metric):
    gate(metric)


@pytest.mark.parametrize(
    "metric", ["samples_missed", "samples_repeated", "eval_samples_miscounted"]
)
def test_samples(gate, metric):
    gate(metric)
