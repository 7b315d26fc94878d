"""Metrics of what torch holds on the host, and of what crosses between host and device."""

from __future__ import annotations

from dataclasses import replace

from records import a_crossing, a_host, a_measurement, a_memory, a_record, a_trace, measured

HOST = {
    "peak_host_pool_bytes": 80,
    "host_pool_bytes": 60,
    "peak_pinned_pool_bytes": 40,
    "pinned_pool_bytes": 20,
    "host_leak_bytes_per_step": 0,
}
CROSSINGS = {
    "host_state_bytes": 70,
    "copied_to_device_bytes": 16,
    "copied_to_host_bytes": 4,
    "host_waits": 3,
}


def test_host_pools_and_crossings_are_those_of_heaviest_rank() -> None:
    lighter = a_record(0)
    memory = a_memory() | {"steady": replace(lighter.memory["steady"], host=a_host(live_bytes=61))}
    trace = a_trace(crossings=a_crossing(host_waits=5, copied_to_host_bytes=2))
    heavier = a_record(1, memory=memory, traced=trace, step_host_bytes=(80, 80, 80, 84, 88, 92))
    found = measured([lighter, heavier])
    expected = HOST | CROSSINGS | {"host_pool_bytes": 61, "host_waits": 5}
    expected["host_leak_bytes_per_step"] = 4
    assert {name: found.value(name) for name in expected} == expected
    assert found.launches[0].per_rank["copied_to_host_bytes"] == (4, 2)


def test_host_pools_are_those_of_steady_steps() -> None:
    memory = a_memory()
    memory["init"] = replace(memory["init"], host=a_host(peak_bytes=10**6))
    assert a_measurement(memory=memory).value("peak_host_pool_bytes") == 80


def test_record_without_host_memory_and_crossings_has_no_host_metrics() -> None:
    """A card's, or one from before they were counted."""
    memory = {name: replace(one, host=None) for name, one in a_memory().items()}
    found = a_measurement(memory=memory, traced=a_trace(crossings=None), step_host_bytes=())
    assert not {*HOST, *CROSSINGS} & set(found.names)
    assert found.value("model_state_bytes") == 900
