"""Streams and events have the names and answers of a card's; the profiler sees the device's memory."""

from __future__ import annotations

import pytest
import torch
from comparing import DEVICE


def test_streams_are_told_apart_and_the_current_one_changes() -> None:
    module = torch.get_device_module(DEVICE)
    first, second = module.Stream(), module.Stream()
    default = module.current_stream()
    assert first != second
    assert default == module.default_stream()
    with module.stream(first):
        assert module.current_stream() == first
        with module.stream(second):
            assert module.current_stream() == second
        assert module.current_stream() == first
    assert module.current_stream() == default
    with first:
        assert module.current_stream() == first
    assert module.current_stream() == default
    first.wait_stream(second)
    assert first.query()
    first.synchronize()


def test_events_say_how_long_work_took() -> None:
    module = torch.get_device_module(DEVICE)
    start, end = module.Event(enable_timing=True), module.Event(enable_timing=True)
    stream = module.Stream()
    start.record()
    torch.ones(10, device=DEVICE).sum()
    end.record(stream)
    end.wait(stream)
    stream.wait_event(end)
    end.synchronize()
    assert start.query()
    assert end.query()
    assert start.elapsed_time(end) >= 0


def test_event_that_is_not_recorded_is_done_and_has_no_time() -> None:
    module = torch.get_device_module(DEVICE)
    assert module.Event(enable_timing=True).query()
    with pytest.raises(ValueError, match="must be recorded"):
        module.Event(enable_timing=True).elapsed_time(module.Event(enable_timing=True))


def test_recorded_stream_leaves_a_tensor_as_it_is() -> None:
    x = torch.ones(3, device=DEVICE)
    x.record_stream(torch.get_device_module(DEVICE).Stream())
    assert x.tolist() == [1, 1, 1]


def test_current_device_changes_and_comes_back() -> None:
    module = torch.get_device_module(DEVICE)
    assert module.current_device() == 0
    with module.device(1):
        assert module.current_device() == 1
        assert torch.ones(1, device=DEVICE).device == torch.device(DEVICE, 1)
    assert module.current_device() == 0


def test_profiler_reports_the_devices_memory_apart_from_the_hosts() -> None:
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        there = torch.ones(1000, device=DEVICE)
        host = torch.ones(500)
        del there
    events = profile.events()
    assert 4000 in [event.device_memory_usage for event in events]
    assert 2000 in [event.cpu_memory_usage for event in events]
    assert host.numel() == 500
