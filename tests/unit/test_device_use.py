"""From what NVML told during a launch to the metrics of its ranks, and to seconds that are judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from records import PROVENANCE, a_cell, a_measurement, a_record

from zerogate.devices.attribution import Reading
from zerogate.devices.nvml import Watched
from zerogate.launch.result import read_record
from zerogate.metrics.device_use import with_device_use, with_strangers
from zerogate.metrics.measurement import measure
from zerogate.metrics.table import METRICS
from zerogate.protocol.atomic_write import write_json
from zerogate.protocol.record import Device, RankRecord, record_path
from zerogate.verdicts.baselines import MetricBaseline, of_measurement
from zerogate.verdicts.comparability import same_speed
from zerogate.verdicts.verdict import judge

GIB = 2**30
UUID = "7f6c-01"
"""As torch has it; NVML's begins with GPU-."""


def on_device(rank: int = 0, uuid: str = UUID) -> RankRecord:
    device = Device(uuid=uuid, pid=100 + rank, peak_reserved_bytes=10 * GIB)
    return a_record(rank, device=device)


def watched(
    *, reasons: int = 0, about: dict[str, int] | None = None, **processes: int
) -> dict[str, Watched]:
    told = {int(name[1:]): size * GIB for name, size in processes.items()}
    before = Reading(used_bytes=GIB, driver_bytes=GIB // 2, processes={})
    reading = Reading(used_bytes=20 * GIB, driver_bytes=GIB // 2, processes=told)
    found = Watched(before=before, during=[reading], reasons=reasons, **(about or {}))
    return {f"GPU-{UUID}": found}


def seen(**told: Any) -> Device:
    (record,) = with_device_use([on_device()], watched(**told))
    assert record.device is not None
    return record.device


def test_a_rank_has_what_its_process_had() -> None:
    found = seen(p100=12)
    assert (found.peak_bytes, found.source) == (12 * GIB, "nvml_process")
    assert found.driver_bytes == GIB // 2
    assert found.troubles == ()


def test_who_ran_out_of_memory_has_who_was_there_before(tmp_path: Path) -> None:
    """Of who came with its launch nobody knows whether it was a peer that left no record."""
    told = watched(p100=12, p101=12)
    (device,) = told.values()
    device.before = Reading(used_bytes=5 * GIB, driver_bytes=0, processes={77: 4 * GIB})
    found = with_strangers(on_device(), told)
    assert found is not None
    assert found.device is not None
    assert found.device.strangers == (77,)
    assert with_strangers(a_record(), told) == a_record(), "a rank without a device"
    assert with_strangers(None, told) is None


def test_what_makes_seconds_worthless_is_said() -> None:
    assert seen(p100=12, p7=1, reasons=0x40).troubles == (
        "the device was throttled (hw_thermal)",
        "process 7 was on the device too",
    )


@pytest.mark.parametrize(
    ("about", "trouble"),
    [
        ({"slowdown_celsius": 90, "temperature_celsius": 91}, "at 91 °C, where it slows down"),
        ({"slowdown_celsius": 90, "temperature_celsius": 89}, ""),
        ({"temperature_celsius": 89}, ""),
        ({"most_sm_mhz": 1200, "possible_sm_mhz": 1980}, "never passed 1200 of 1980 MHz"),
        ({"most_sm_mhz": 1500, "possible_sm_mhz": 1980}, ""),
        ({"possible_sm_mhz": 1980}, ""),
    ],
)
def test_heat_and_clocks_make_seconds_worthless(about: dict[str, int], trouble: str) -> None:
    found = seen(p100=12, about=about).troubles
    assert bool(found) == bool(trouble)
    assert trouble in "".join(found)


def test_a_rank_on_another_device_than_the_one_watched_is_in_trouble() -> None:
    (record,) = with_device_use([on_device(uuid="another")], watched(p100=12))
    assert record.device is not None
    assert record.device.troubles == ("it ran on another, which was not watched",)
    assert record.device.source == ""


def test_ranks_on_the_cpu_stay_as_they_are() -> None:
    record = a_record(0)
    assert with_device_use([record], {}) == (record,)


def test_the_metrics() -> None:
    (record,) = with_device_use([on_device()], watched(p100=12))
    found = measure(a_cell(), [[record]])
    assert found.value("peak_device_bytes") == 12 * GIB
    assert found.value("peak_reserved_bytes") == 10 * GIB


def test_what_nvml_did_not_tell_is_no_number_of_the_allocators() -> None:
    (record,) = with_device_use([on_device()], watched(p8=1, p9=1))
    assert record.device is not None
    assert record.device.source == "cuda_allocator"
    found = measure(a_cell(), [[record]])
    assert found.value("peak_device_bytes") is None
    assert found.value("peak_reserved_bytes") == 10 * GIB


def test_what_a_device_rose_by_is_never_held_to_what_a_process_had() -> None:
    (record,) = with_device_use([on_device()], watched(p100=0))
    assert record.device is not None
    assert record.device.source == "nvml_device_delta"
    found = measure(a_cell(), [[record]])
    assert found.value("peak_device_delta_bytes") == 19 * GIB
    assert found.value("peak_device_bytes") is None


def test_a_rank_that_nvml_did_not_see_leaves_the_peak_unknown() -> None:
    records = with_device_use([on_device(0), on_device(1, uuid="another")], watched(p100=12))
    found = measure(a_cell(), [list(records)])
    assert found.value("peak_device_bytes") is None


def test_a_record_with_a_device_survives_the_wire(tmp_path: Path) -> None:
    (record,) = with_device_use([on_device()], watched(p100=12, p7=1))
    write_json(record_path(tmp_path, 0), record)
    assert read_record(record_path(tmp_path, 0)) == record


@pytest.mark.parametrize("troubled", [False, True])
def test_seconds_of_a_troubled_launch_are_invalid(troubled: bool) -> None:
    baseline = of_measurement(a_measurement(launches=3), PROVENANCE)
    own = a_measurement()
    if troubled:
        trouble = "rank 0: the device was throttled (hw_thermal)"
        own = replace(own, launches=(replace(own.launches[0], troubles=(trouble,)),))
    found = same_speed(own, baseline)
    assert ("throttled (hw_thermal)" in found) == troubled
    assert bool(found) == troubled


@pytest.mark.parametrize(
    ("extra_mib", "status"),
    [(256, "regressed"), (128, "ok"), (-128, "ok"), (-256, "improved")],
)
@pytest.mark.parametrize("peak_gib", [2, 24, 140])
def test_an_extra_allocation_of_256_mib_is_caught_on_any_card(
    peak_gib: int, extra_mib: int, status: str
) -> None:
    peak = peak_gib * GIB
    baseline = MetricBaseline(value=peak, spread=0.0, launches=(peak,) * 3)
    metric = METRICS["peak_device_bytes"]
    assert judge(a_cell(), metric, peak + extra_mib * 2**20, baseline).status == status
