"""The rungs of device memory. LaunchReadings are made by hand, after what the reports in
``docs/gpu-results.md``'s sources describe; none was recorded on a card.
"""

from __future__ import annotations

import pytest

from zerogate.devices.attribution import (
    AttributedMemory,
    RankOnDevice,
    Reading,
    attribute_memory,
    throttled,
)

GIB = 2**30
RANK = RankOnDevice(rank=0, pid=100, uuid="GPU-a", reserved_bytes=10 * GIB)
IDLE = Reading(used_bytes=1 * GIB, driver_bytes=GIB // 2, processes={})


def reading(used: int, **processes: int | None) -> Reading:
    """``p100=…`` are processes by pid; GiB."""
    told = {int(name[1:]): size and size * GIB for name, size in processes.items()}
    return Reading(used_bytes=used * GIB, driver_bytes=GIB // 2, processes=told)


def used(*during: Reading, before: Reading = IDLE, sharing: int = 1) -> AttributedMemory:
    ranks = [RANK] + [
        RankOnDevice(rank=index, pid=100 + index, uuid="GPU-a", reserved_bytes=10 * GIB)
        for index in range(1, sharing)
    ]
    return attribute_memory(RANK, ranks, before, during)


def test_rank_listed_by_nvml_gets_its_process_peak() -> None:
    found = used(reading(5, p100=4), reading(13, p100=12), reading(12, p100=11))
    assert found == AttributedMemory(
        peak_bytes=12 * GIB, source="nvml_process", driver_bytes=GIB // 2, other_processes=()
    )


def test_other_process_started_during_launch_is_listed() -> None:
    found = used(reading(15, p100=12, p77=2))
    assert (found.source, found.other_processes) == ("nvml_process", (77,))


def test_other_process_running_before_launch_is_listed() -> None:
    found = used(reading(15, p100=12, p5=1), before=reading(2, p5=1))
    assert (found.source, found.other_processes) == ("nvml_process", (5,))


@pytest.mark.parametrize("told", [None, 0, 9])
def test_process_peak_below_allocator_falls_back_to_device_delta(told: int | None) -> None:
    found = used(reading(13, p100=told))
    assert found.source == "nvml_device_delta"
    assert found.peak_bytes == 12 * GIB


def test_single_host_pid_is_attributed_by_elimination() -> None:
    found = used(reading(13, p40001=12))
    assert (found.source, found.peak_bytes) == ("nvml_process_by_elimination", 12 * GIB)


def test_new_host_pid_beside_other_process_is_attributed() -> None:
    found = used(reading(15, p40001=12, p5=2), before=reading(3, p5=2))
    assert (found.source, found.other_processes) == ("nvml_process_by_elimination", (5,))


def test_two_new_host_pids_fall_back_to_allocator() -> None:
    found = used(reading(25, p40001=12, p40002=12))
    assert (found.source, found.other_processes) == ("cuda_allocator", (40001, 40002))


def test_reading_without_processes_falls_back_to_device_delta() -> None:
    assert used(reading(13)).source == "nvml_device_delta"


def test_device_with_earlier_process_falls_back_to_allocator() -> None:
    found = used(reading(13, p5=2), before=reading(3, p5=2))
    assert (found.source, found.peak_bytes) == ("cuda_allocator", 10 * GIB)


def test_device_delta_below_allocator_falls_back_to_allocator() -> None:
    assert used(reading(5)).source == "cuda_allocator"


def test_ranks_sharing_device_use_process_peak_or_allocator() -> None:
    assert used(reading(25, p100=12, p101=12), sharing=2).source == "nvml_process"
    assert used(reading(25), sharing=2).source == "cuda_allocator"


def test_launch_without_readings_falls_back_to_allocator() -> None:
    assert used() == AttributedMemory(
        peak_bytes=10 * GIB, source="cuda_allocator", driver_bytes=GIB // 2, other_processes=()
    )


def test_device_delta_counts_readings_without_process_list() -> None:
    quick = Reading(used_bytes=14 * GIB, driver_bytes=GIB // 2)
    assert used(reading(5), quick, reading(12)).peak_bytes == 13 * GIB


@pytest.mark.parametrize(
    ("reasons", "names"),
    [
        (0x00, ()),
        (0x01, ()),
        (0x04, ()),
        (0x08, ("hw_slowdown",)),
        (0x60, ("sw_thermal", "hw_thermal")),
        (0x84, ("hw_power_brake",)),
    ],
)
def test_throttled_names_reasons_that_invalidate_seconds(
    reasons: int, names: tuple[str, ...]
) -> None:
    assert throttled(reasons) == names
