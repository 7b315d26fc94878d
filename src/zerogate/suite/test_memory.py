"""Memory: what a cell holds on its device, phase by phase, to the byte on the cpu tier."""

import pytest


@pytest.mark.parametrize(
    "metric",
    [
        "peak_allocated_bytes",
        "peak_init_bytes",
        "peak_first_step_bytes",
        "peak_eval_bytes",
        "live_bytes",
        "model_state_bytes",
        "leak_bytes_per_step",
    ],
)
def test_memory(gate, metric):
    gate(metric)


@pytest.mark.tiers("cpu")
@pytest.mark.parametrize(
    "metric",
    [
        "host_state_bytes",
        "peak_host_pool_bytes",
        "host_pool_bytes",
        "peak_pinned_pool_bytes",
        "pinned_pool_bytes",
        "host_leak_bytes_per_step",
    ],
)
def test_host_memory(gate, metric):
    gate(metric)


@pytest.mark.tiers("gpu")
@pytest.mark.parametrize(
    "metric",
    [
        "peak_device_bytes",
        "peak_device_delta_bytes",
        "peak_reserved_bytes",
        "peak_active_bytes",
        "peak_requested_bytes",
        "pinned_bytes",
        "allocator_retries",
        "allocator_ooms",
    ],
)
def test_device_memory(gate, metric):
    gate(metric)
