"""The sources of device memory: which one a host has, and what a launch gets from it.

Readings are made by hand; ``test_replay`` has those that a card's launches left.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from zerogate.devices.attribution import (
    AttributedMemory,
    RankOnDevice,
    Reading,
    Source,
    attribute_memory,
    choose_source,
    throttled,
)

GIB = 2**30
RANK = RankOnDevice(rank=0, pid=100, uuid="GPU-a", reserved_bytes=10 * GIB)
IDLE = Reading(used_bytes=1 * GIB, driver_bytes=GIB // 2, processes={})


def reading(used: int, **processes: int | None) -> Reading:
    """``p100=…`` are processes by pid; GiB."""
    told = {int(name[1:]): size and size * GIB for name, size in processes.items()}
    return Reading(used_bytes=used * GIB, driver_bytes=GIB // 2, processes=told)


def used(
    *during: Reading,
    before: Reading = IDLE,
    sharing: int = 1,
    process: int = 0,
    source: Source | None = None,
) -> AttributedMemory:
    """By ``source``, or by the one that these readings show the host to have. ``process``: GiB."""
    ranks = [
        replace(RANK, rank=index, pid=100 + index, process_bytes=process * GIB)
        for index in range(sharing)
    ]
    source = source or choose_source(ranks, before, during)
    return attribute_memory(ranks[0], ranks, before, during, source)


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


def test_host_process_with_pid_of_rank_is_not_the_rank() -> None:
    """In a container: a process with that pid was on the device before the launch."""
    before = reading(5, p100=5)
    found = used(reading(17, p100=5, p98765=12), before=before, process=5)
    assert (found.source, found.peak_bytes) == ("nvml_process_by_elimination", 12 * GIB)


def test_peak_between_two_lists_is_what_rank_asked_itself() -> None:
    found = used(reading(9, p100=8), process=12)
    assert (found.source, found.peak_bytes, found.missing) == ("nvml_process", 12 * GIB, "")


def test_peak_of_rank_that_controller_cannot_list_is_its_own() -> None:
    found = used(Reading(used_bytes=13 * GIB, driver_bytes=0), process=12, sharing=2)
    assert (found.source, found.peak_bytes) == ("nvml_process", 12 * GIB)


@pytest.mark.parametrize("told", [None, 0])
def test_lists_without_bytes_leave_device_delta(told: int | None) -> None:
    found = used(reading(13, p100=told))
    assert (found.source, found.peak_bytes) == ("nvml_device_delta", 12 * GIB)


def test_process_peak_below_allocator_is_missing_from_same_source() -> None:
    """The device rose by enough, but that is another quantity."""
    found = used(reading(13, p100=9))
    assert (found.source, found.peak_bytes) == ("nvml_process", 10 * GIB)
    assert found.missing == (
        f"NVML showed at most {9 * GIB} bytes of process 100, whose allocator reserved {10 * GIB}"
    )


@pytest.mark.parametrize(
    ("source", "during", "why"),
    [
        ("nvml_process", reading(13, p40001=12), "listed no bytes of process 100"),
        ("nvml_process_by_elimination", reading(13), "0 processes came"),
        ("nvml_process_by_elimination", reading(25, p7=12, p8=12), "2 processes came"),
        ("nvml_device_delta", reading(13, p7=1, p8=2), "process 7, 8 was on the device too"),
        ("nvml_device_delta", reading(5), f"at most {4 * GIB} bytes"),
        ("cuda_allocator", reading(13, p100=12), "NVML tells neither"),
    ],
)
def test_launch_without_hosts_source_says_why(source: Source, during: Reading, why: str) -> None:
    found = used(during, source=source)
    assert (found.source, found.peak_bytes) == (source, 10 * GIB)
    assert why in found.missing


def test_single_host_pid_is_attributed_by_elimination() -> None:
    found = used(reading(13, p40001=12))
    assert (found.source, found.peak_bytes) == ("nvml_process_by_elimination", 12 * GIB)


def test_new_host_pid_beside_other_process_is_attributed() -> None:
    found = used(reading(15, p40001=12, p5=2), before=reading(3, p5=2))
    assert (found.source, found.other_processes) == ("nvml_process_by_elimination", (5,))


def test_two_new_host_pids_are_others_and_peak_is_missing() -> None:
    found = used(reading(25, p40001=12, p40002=12))
    assert (found.source, found.other_processes) == (
        "nvml_process_by_elimination",
        (40001, 40002),
    )
    assert found.missing


def test_reading_without_processes_falls_back_to_device_delta() -> None:
    assert used(reading(13)).source == "nvml_device_delta"


def test_device_delta_beside_earlier_process_is_missing() -> None:
    found = used(reading(13, p5=2), before=reading(3, p5=2))
    assert (found.source, found.other_processes) == ("nvml_device_delta", (5,))
    assert "process 5 was on the device too" in found.missing


def test_ranks_sharing_device_use_process_peak_or_allocator() -> None:
    assert used(reading(25, p100=12, p101=12), sharing=2).source == "nvml_process"
    assert used(reading(25), sharing=2).source == "cuda_allocator"


def test_launch_without_readings_falls_back_to_allocator() -> None:
    assert used() == AttributedMemory(
        peak_bytes=10 * GIB,
        source="cuda_allocator",
        driver_bytes=GIB // 2,
        missing="NVML tells neither what a process holds here nor what the device does",
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
