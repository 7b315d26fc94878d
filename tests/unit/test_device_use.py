"""From what NVML told during a launch to the metrics of its ranks, and to seconds that are judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from records import PROVENANCE, a_cell, a_measurement, a_record

from zerogate.devices.attribution import Reading, Source
from zerogate.devices.nvml import DeviceReadings
from zerogate.launch.record_file import read_record
from zerogate.metrics.device_use import (
    LaunchRecords,
    RankDeviceUse,
    device_use,
    processes_before,
)
from zerogate.metrics.measurement import Measurement, measure
from zerogate.metrics.table import METRICS
from zerogate.protocol.atomic_write import write_json
from zerogate.protocol.record import Device, RankRecord, record_path
from zerogate.session.record_baselines import left_out
from zerogate.verdicts.baselines import MetricBaseline, of_measurement
from zerogate.verdicts.comparability import device_conditions_note
from zerogate.verdicts.evidence import Evidence, OtherEnvironment
from zerogate.verdicts.judge import judge_metric
from zerogate.verdicts.verdict import compare

GIB = 2**30
GPU = replace(a_cell(), tier="gpu")
UUID = "7f6c-01"
"""As torch has it; NVML's begins with GPU-."""


def on_device(rank: int = 0, uuid: str = UUID, process: int = 0) -> RankRecord:
    device = Device(
        uuid=uuid, pid=100 + rank, peak_reserved_bytes=10 * GIB, process_bytes=process * GIB
    )
    return a_record(rank, device=device)


def watched(
    *, reasons: int = 0, about: dict[str, int] | None = None, **processes: int
) -> dict[str, DeviceReadings]:
    told = {int(name[1:]): size * GIB for name, size in processes.items()}
    before = Reading(used_bytes=GIB, driver_bytes=GIB // 2, processes={})
    reading = Reading(used_bytes=20 * GIB, driver_bytes=GIB // 2, processes=told)
    found = DeviceReadings(before=before, during=[reading], reasons=reasons, **(about or {}))
    return {f"GPU-{UUID}": found}


def launched(*records: RankRecord, **told: Any) -> LaunchRecords:
    return LaunchRecords(ranks=records, devices=watched(**told))


def seen(**told: Any) -> RankDeviceUse:
    return device_use(launched(on_device(), **told))[0]


def test_record_gets_device_memory_of_rank_process() -> None:
    found = seen(p100=12)
    assert (found.peak_bytes, found.source) == (12 * GIB, "nvml_process")
    assert found.driver_bytes == GIB // 2
    assert found.events == ()


def test_record_out_of_memory_lists_earlier_other_process(tmp_path: Path) -> None:
    """Of who came with its launch nobody knows whether it was a peer that left no record."""
    told = watched(p100=12, p101=12)
    (device,) = told.values()
    device.before = Reading(used_bytes=5 * GIB, driver_bytes=0, processes={77: 4 * GIB})
    assert processes_before(on_device(), told) == (77,)
    assert processes_before(a_record(), told) == (), "a rank without a device"
    assert processes_before(on_device(), None) == (), "nobody read the device"


def test_record_names_throttling_and_other_process() -> None:
    assert seen(p100=12, p7=1, reasons=0x40).events == (
        "the device was throttled (hw_thermal)",
        "process 7 was on the device too",
    )


@pytest.mark.parametrize(
    ("about", "event"),
    [
        ({"slowdown_celsius": 90, "temperature_celsius": 91}, "at 91 °C, where it slows down"),
        ({"slowdown_celsius": 90, "temperature_celsius": 89}, ""),
        ({"temperature_celsius": 89}, ""),
        ({"most_sm_mhz": 1200, "possible_sm_mhz": 1980}, "never passed 1200 of 1980 MHz"),
        ({"most_sm_mhz": 1500, "possible_sm_mhz": 1980}, ""),
        ({"possible_sm_mhz": 1980}, ""),
    ],
)
def test_record_names_heat_and_low_clock(about: dict[str, int], event: str) -> None:
    found = seen(p100=12, about=about).events
    assert bool(found) == bool(event)
    assert event in "".join(found)


def test_record_of_rank_on_unwatched_device_says_so() -> None:
    found = device_use(launched(on_device(uuid="another"), p100=12))[0]
    assert found.events == ("it ran on another, which was not watched",)
    assert found.source == ""


def test_record_of_cpu_rank_stays_unchanged() -> None:
    assert device_use(LaunchRecords(ranks=(a_record(0),), devices={})) == {}


def test_device_metrics_have_process_and_allocator_peaks() -> None:
    found = measure(a_cell(), [launched(on_device(), p100=12)])
    assert found.value("peak_device_bytes") == 12 * GIB
    assert found.value("peak_reserved_bytes") == 10 * GIB


def test_peak_device_bytes_are_not_taken_from_allocator() -> None:
    assert "2 processes came" in seen(p8=1, p9=1).missing
    found = measure(a_cell(), [launched(on_device(), p8=1, p9=1)])
    assert found.value("peak_device_bytes") is None
    assert found.value("peak_reserved_bytes") == 10 * GIB


def test_device_delta_is_metric_apart_from_process_peak() -> None:
    assert seen(p100=0).source == "nvml_device_delta"
    found = measure(a_cell(), [launched(on_device(), p100=0)])
    assert found.value("peak_device_delta_bytes") == 19 * GIB
    assert found.value("peak_device_bytes") is None


PEAKS = ("peak_device_bytes", "peak_device_delta_bytes")


def measured(source: Source, *records: RankRecord, **told: Any) -> Measurement:
    """By a launch on a host whose source was chosen before."""
    return measure(GPU, [replace(launched(*records, **told), source=source)])


def verdicts(own: Measurement, recorded: Measurement | None) -> list[tuple[str, str]]:
    """Status and note of both metrics."""
    baseline = of_measurement(recorded, PROVENANCE) if recorded else None
    evidence = Evidence(own=own, hardware=PROVENANCE.hardware, host="", baseline=baseline)
    found = [judge_metric(evidence, METRICS[name]) for name in PEAKS]
    return [(one.status, one.note) for one in found]


BY_PROCESS = measure(GPU, [launched(on_device(process=12), p100=12)])
BY_DELTA = measure(GPU, [launched(on_device())])


def test_launch_that_missed_its_peak_is_invalid_and_never_another_metric() -> None:
    """A short one: its list was read too early. Its device rose by enough."""
    own = measured("nvml_process", on_device(), p100=4)
    assert {*PEAKS}.isdisjoint(own.names)
    why = f"peak not judged: rank 0: NVML showed at most {4 * GIB} bytes of process 100"
    for baseline in (BY_PROCESS, None):
        (status, note), (delta, _) = verdicts(own, baseline)
        assert (status, delta) == ("invalid", "not_comparable")
        assert note.startswith(why)


def test_one_launch_of_three_without_peak_is_invalid() -> None:
    whole = launched(on_device(process=12), p100=12)
    lacks = replace(launched(on_device(), p100=4), source="nvml_process")
    own = measure(GPU, [whole, lacks, whole])
    assert verdicts(own, BY_PROCESS)[0][0] == "invalid"
    assert "no peak of the process: rank 0: NVML showed" in left_out(own)


@pytest.mark.parametrize(
    ("own", "recorded"), [(BY_DELTA, BY_PROCESS), (BY_PROCESS, BY_DELTA)], ids=["delta", "process"]
)
def test_peak_recorded_from_another_source_is_invalid_under_both_names(
    own: Measurement, recorded: Measurement
) -> None:
    found = verdicts(own, recorded)
    assert [status for status, _ in found] == ["invalid", "invalid"]
    assert all(f"this host's source is {own.device_source}" in note for _, note in found)


def test_peak_from_recorded_source_is_judged() -> None:
    assert verdicts(BY_PROCESS, BY_PROCESS)[0][0] == "ok"
    assert verdicts(BY_DELTA, BY_DELTA)[1][0] == "ok"
    assert verdicts(BY_PROCESS, None)[0][0] == "no_baseline"


def test_peak_of_launch_that_nobody_read_is_invalid_against_baseline() -> None:
    own = measure(GPU, [LaunchRecords(ranks=(on_device(),))])
    assert verdicts(own, BY_PROCESS)[0] == (
        "invalid",
        "peak not judged: recorded from another source; no device was read",
    )


def test_peak_missing_in_other_environment_is_invalid() -> None:
    lacks = measured("nvml_process", on_device(), p100=4)
    other = OtherEnvironment(name="there", repeats=1, own=lacks)
    evidence = Evidence(own=BY_PROCESS, hardware="", host="", other=other)
    found = judge_metric(evidence, METRICS["peak_device_bytes"])
    assert (found.status, found.against) == ("invalid", "there")
    assert found.note.startswith("there: peak not judged: rank 0: NVML showed")


def test_peak_device_bytes_with_unwatched_rank_are_unknown() -> None:
    found = measure(a_cell(), [launched(on_device(0), on_device(1, uuid="another"), p100=12)])
    assert found.value("peak_device_bytes") is None


def test_record_with_device_is_read_back_as_written(tmp_path: Path) -> None:
    record = on_device()
    write_json(record_path(tmp_path, 0), record)
    assert read_record(record_path(tmp_path, 0)) == record


@pytest.mark.parametrize("events", [(), ("rank 0: the device was throttled (hw_thermal)",)])
def test_seconds_of_throttled_launch_are_not_comparable(events: tuple[str, ...]) -> None:
    found = device_conditions_note(a_measurement(device_events=events))
    assert bool(found) == bool(events)
    assert all(event in found for event in events)


@pytest.mark.parametrize(
    ("extra_mib", "status"),
    [(256, "regressed"), (128, "ok"), (-128, "ok"), (-256, "improved")],
)
@pytest.mark.parametrize("peak_gib", [2, 24, 140])
def test_verdict_detects_change_of_256_mib_on_any_card(
    peak_gib: int, extra_mib: int, status: str
) -> None:
    peak = peak_gib * GIB
    baseline = MetricBaseline(value=peak, spread=0.0, launches=(peak,) * 3)
    metric = METRICS["peak_device_bytes"]
    assert compare(a_cell(), metric, peak + extra_mib * 2**20, baseline).status == status
