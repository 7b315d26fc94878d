"""Reading devices during a launch, with an NVML that is made by hand."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pynvml as real
import pytest

from zerogate.devices import nvml
from zerogate.devices.attribution import HARD, Reading
from zerogate.devices.nvml import DeviceReadings, DeviceWatch


class FakeNVML(SimpleNamespace):
    """Tells of one device what ``memory`` and ``processes`` say, in turn, then the last for ever."""

    NVMLError = real.NVMLError
    nvmlMemory_v2 = real.nvmlMemory_v2
    NVML_TEMPERATURE_GPU = NVML_CLOCK_SM = NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 0

    def __init__(self, memory: list[int], processes: dict[int, int | None]) -> None:
        super().__init__()
        self.memory = memory
        self.processes = processes
        self.asked = 0
        self.seen = threading.Event()
        self.open = 0

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != "GPU-a":
            raise self.NVMLError(real.NVML_ERROR_NOT_FOUND)
        return uuid

    def nvmlDeviceGetMemoryInfo(self, handle: str, version: Any) -> SimpleNamespace:
        used = self.memory[min(self.asked, len(self.memory) - 1)]
        self.asked += 1
        if self.asked > len(self.memory):
            self.seen.set()
        return SimpleNamespace(used=used, reserved=7)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in self.processes.items()
        ]

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:
        return 0x20

    def nvmlDeviceGetTemperature(self, handle: str, kind: int) -> int:
        return 61

    def nvmlDeviceGetMaxClockInfo(self, handle: str, kind: int) -> int:
        raise self.NVMLError(real.NVML_ERROR_NOT_SUPPORTED)

    def nvmlDeviceGetTemperatureThreshold(self, handle: str, kind: int) -> int:
        return 87

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:
        raise self.NVMLError(real.NVML_ERROR_NOT_SUPPORTED)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNVML]:
    monkeypatch.setattr(nvml, "MEMORY_SECONDS", 0.001)
    found = FakeNVML([10, 50, 90, 40], {100: 30})
    monkeypatch.setitem(sys.modules, "pynvml", found)  # type: ignore[arg-type]
    yield found
    assert found.open == 0, "NVML is let go"


def test_device_watch_reads_device_before_and_during_launch(fake: FakeNVML) -> None:
    with DeviceWatch(["GPU-a"]) as watch:
        assert fake.seen.wait(30)
    device = watch.devices["GPU-a"]
    assert device.before == Reading(used_bytes=10, driver_bytes=7, processes={100: 30})
    assert max(one.used_bytes for one in device.during) == 90
    assert device.during[0].processes == {100: 30}
    assert (device.reasons, device.temperature_celsius) == (0x20, 61)
    assert device.slowdown_celsius == 87


def test_new_high_of_memory_has_list_of_processes(fake: FakeNVML) -> None:
    """A short launch's peak may fall between two lists that are read by the clock."""
    with DeviceWatch(["GPU-a"]) as watch:
        assert fake.seen.wait(30)
    highs = [one for one in watch.devices["GPU-a"].during if one.used_bytes in (50, 90)]
    assert [one.processes for one in highs[:2]] == [{100: 30}, {100: 30}]
    assert highs[1].used_bytes == 90


def test_readings_without_process_list_keep_memory(
    fake: FakeNVML, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(handle: str) -> None:
        raise real.NVMLError(real.NVML_ERROR_NO_PERMISSION)

    monkeypatch.setattr(fake, "nvmlDeviceGetComputeRunningProcesses", refused, raising=False)
    assert nvml.current_readings(["GPU-a"]) == {"GPU-a": Reading(used_bytes=10, driver_bytes=7)}


def test_device_watch_of_older_driver_uses_older_functions(
    fake: FakeNVML, monkeypatch: pytest.MonkeyPatch
) -> None:
    def memory(handle: str, version: Any = None) -> SimpleNamespace:
        if version is not None:
            raise real.NVMLError(real.NVML_ERROR_FUNCTION_NOT_FOUND)
        fake.seen.set()
        return SimpleNamespace(used=10)

    def unknown(handle: str) -> None:
        raise real.NVMLError(real.NVML_ERROR_FUNCTION_NOT_FOUND)

    monkeypatch.setattr(fake, "nvmlDeviceGetMemoryInfo", memory, raising=False)
    monkeypatch.setattr(fake, "nvmlDeviceGetCurrentClocksEventReasons", unknown, raising=False)
    reasons = "nvmlDeviceGetCurrentClocksThrottleReasons"
    told = threading.Event()
    monkeypatch.setattr(fake, reasons, lambda handle: (told.set(), 0x40)[1], raising=False)
    with DeviceWatch(["GPU-a"]) as watch:
        assert told.wait(30)
    device = watch.devices["GPU-a"]
    assert (device.before.used_bytes, device.before.driver_bytes) == (10, 0)
    assert device.reasons == 0x40


def test_device_watch_of_unknown_device_is_empty(fake: FakeNVML) -> None:
    with DeviceWatch(["MIG-b"]) as watch:
        pass
    assert watch.devices == {}


def test_readings_are_taken_once_and_skip_unknown_device(fake: FakeNVML) -> None:
    found = nvml.current_readings(["GPU-a", "MIG-b"])
    assert found == {"GPU-a": Reading(used_bytes=10, driver_bytes=7, processes={100: 30})}
    assert fake.asked == 1


def test_device_watch_without_driver_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise real.NVMLError(real.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(real, "nvmlInit", broken)
    with DeviceWatch(["GPU-a"]) as watch:
        pass
    assert watch.devices == {}


def test_watched_keeps_only_readings_with_new_memory_peak() -> None:
    device = DeviceReadings(before=Reading(used_bytes=0, driver_bytes=0))
    for used in (5, 3, 4, 9, 9, 1):
        device.add(Reading(used_bytes=used, driver_bytes=0))
    assert [one.used_bytes for one in device.during] == [5, 9]


def test_hardware_slowdown_bits_match_nvml_constants() -> None:
    assert {
        "hw_slowdown": real.nvmlClocksEventReasonHwSlowdown,
        "sw_thermal": real.nvmlClocksEventReasonSwThermalSlowdown,
        "hw_thermal": real.nvmlClocksEventReasonHwThermalSlowdown,
        "hw_power_brake": real.nvmlClocksEventReasonHwPowerBrakeSlowdown,
    } == HARD
