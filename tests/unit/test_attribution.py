"""The rungs of device memory. Readings are made by hand, after what the reports in
``docs/gpu-results.md``'s sources describe; none was recorded on a card.
"""

from __future__ import annotations

import pytest

from zerogate.devices.attribution import DeviceUse, RankOnDevice, Reading, device_use, throttled

GIB = 2**30
RANK = RankOnDevice(rank=0, pid=100, uuid="GPU-a", reserved_bytes=10 * GIB)
IDLE = Reading(used_bytes=1 * GIB, driver_bytes=GIB // 2, processes={})


def reading(used: int, **processes: int | None) -> Reading:
    """``p100=…`` are processes by pid; GiB."""
    told = {int(name[1:]): size and size * GIB for name, size in processes.items()}
    return Reading(used_bytes=used * GIB, driver_bytes=GIB // 2, processes=told)


def used(*during: Reading, before: Reading = IDLE, sharing: int = 1) -> DeviceUse:
    ranks = [RANK] + [
        RankOnDevice(rank=index, pid=100 + index, uuid="GPU-a", reserved_bytes=10 * GIB)
        for index in range(1, sharing)
    ]
    return device_use(RANK, ranks, before, during)


def test_a_process_that_is_told() -> None:
    found = used(reading(5, p100=4), reading(13, p100=12), reading(12, p100=11))
    assert found == DeviceUse(
        peak_bytes=12 * GIB, source="nvml_process", driver_bytes=GIB // 2, others=()
    )


def test_a_process_of_somebody_else_is_named() -> None:
    found = used(reading(15, p100=12, p77=2))
    assert (found.source, found.others) == ("nvml_process", (77,))


def test_who_was_there_before_is_somebody_else() -> None:
    found = used(reading(15, p100=12, p5=1), before=reading(2, p5=1))
    assert (found.source, found.others) == ("nvml_process", (5,))


@pytest.mark.parametrize("told", [None, 0, 9])
def test_less_than_the_allocator_reserved_is_wrong(told: int | None) -> None:
    found = used(reading(13, p100=told))
    assert found.source == "nvml_device_delta"
    assert found.peak_bytes == 12 * GIB


def test_a_hosts_pids() -> None:
    found = used(reading(13, p40001=12))
    assert (found.source, found.peak_bytes) == ("nvml_process_by_elimination", 12 * GIB)


def test_a_hosts_pids_beside_somebody_who_stays() -> None:
    found = used(reading(15, p40001=12, p5=2), before=reading(3, p5=2))
    assert (found.source, found.others) == ("nvml_process_by_elimination", (5,))


def test_two_newcomers_cannot_be_told_apart() -> None:
    found = used(reading(25, p40001=12, p40002=12))
    assert (found.source, found.others) == ("cuda_allocator", (40001, 40002))


def test_a_namespace_that_shows_no_process() -> None:
    assert used(reading(13)).source == "nvml_device_delta"


def test_a_device_that_somebody_used_before_gives_no_difference() -> None:
    found = used(reading(13, p5=2), before=reading(3, p5=2))
    assert (found.source, found.peak_bytes) == ("cuda_allocator", 10 * GIB)


def test_a_difference_below_the_allocators_is_wrong() -> None:
    assert used(reading(5)).source == "cuda_allocator"


def test_ranks_that_share_a_device_are_told_by_process_or_not_at_all() -> None:
    assert used(reading(25, p100=12, p101=12), sharing=2).source == "nvml_process"
    assert used(reading(25), sharing=2).source == "cuda_allocator"


def test_a_launch_that_was_never_read() -> None:
    assert used() == DeviceUse(
        peak_bytes=10 * GIB, source="cuda_allocator", driver_bytes=GIB // 2, others=()
    )


def test_used_between_lists_counts_too() -> None:
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
def test_throttling(reasons: int, names: tuple[str, ...]) -> None:
    assert throttled(reasons) == names
