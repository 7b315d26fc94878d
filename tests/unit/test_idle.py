"""Before a launch the devices are as they were before the first, by an NVML made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from records import a_cell

from zerogate.config.options import Options
from zerogate.devices import assignment
from zerogate.devices.attribution import Reading
from zerogate.devices.cards import Card
from zerogate.devices.nvml import DeviceReadings
from zerogate.launch import idle
from zerogate.launch.deadlines import deadlines
from zerogate.launch.errors import LauncherFailedError, RankCrashedError
from zerogate.launch.idle import BOUND_BYTES, IdleLevels
from zerogate.launch.launcher import LaunchResult
from zerogate.launch.watchdog import Watchdog
from zerogate.protocol.job import Job
from zerogate.session import runner
from zerogate.session.rank_setup import RankSetup

GIB = 2**30
DEVICE = "GPU-a"
SEEN = Reading(used_bytes=GIB, driver_bytes=0, processes={5: GIB})


class Device:
    """Tells its memory in turn, the last for ever."""

    def __init__(self) -> None:
        self.used = [GIB]
        self.processes: dict[int, int | None] = {}
        self.graphics: list[int] = []
        self.asked = 0

    def readings(self, uuids: Sequence[str]) -> dict[str, Reading]:
        self.asked += 1
        used = self.used.pop(0) if len(self.used) > 1 else self.used[0]
        reading = Reading(used_bytes=used, driver_bytes=0, processes=self.processes)
        return dict.fromkeys(uuids, reading)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    found = Device()
    monkeypatch.setattr(idle, "current_readings", found.readings)
    monkeypatch.setattr(idle, "graphics_processes", lambda uuid: found.graphics)
    monkeypatch.setattr(idle, "POLL_SECONDS", 0.0)
    return found


def session(wait_seconds: float | None = 0) -> IdleLevels:
    """Levels of a session in which NVML has listed a process of this device."""
    levels = IdleLevels(wait_seconds)
    levels.saw({DEVICE: DeviceReadings(before=SEEN, during=[SEEN])})
    return levels


def test_first_launch_reads_idle_level_without_waiting(device: Device) -> None:
    device.used = [40 * GIB]
    IdleLevels(wait_seconds=0).await_idle([DEVICE], pytest.fail)
    assert device.asked == 1


def test_idle_wait_lasts_until_memory_is_freed(device: Device) -> None:
    levels = IdleLevels()
    levels.await_idle([DEVICE], pytest.fail)
    device.used = [30 * GIB, 8 * GIB, GIB + BOUND_BYTES]
    levels.await_idle([DEVICE], pytest.fail)
    assert device.asked == 4


def test_memory_held_by_no_process_is_error(device: Device) -> None:
    levels = session()
    levels.await_idle([DEVICE], pytest.fail)
    device.used = [GIB + 512 * 2**20]
    with pytest.raises(LauncherFailedError, match=f"{DEVICE}: 512 MiB above its idle level"):
        levels.await_idle([DEVICE], pytest.fail)


def test_idle_level_stays_same_after_error(device: Device) -> None:
    """Else a leak would be an error once, and then be the level."""
    levels = session()
    levels.await_idle([DEVICE], pytest.fail)
    device.used = [2 * GIB]
    for _ in range(2):
        with pytest.raises(LauncherFailedError):
            levels.await_idle([DEVICE], pytest.fail)


def test_memory_of_other_process_is_reported_without_error(device: Device) -> None:
    levels = session()
    levels.await_idle([DEVICE], pytest.fail)
    device.used, device.processes = [3 * GIB], {77: 2 * GIB}
    said: list[str] = []
    levels.await_idle([DEVICE], said.append)
    assert said == [f"{DEVICE}: 2048 MiB above its idle level: in use by process 77"]


def test_memory_of_graphics_process_is_reported_without_error(device: Device) -> None:
    levels = session()
    levels.await_idle([DEVICE], pytest.fail)
    device.used, device.graphics = [2 * GIB], [9]
    said: list[str] = []
    levels.await_idle([DEVICE], said.append)
    assert said == [f"{DEVICE}: 1024 MiB above its idle level: in use by process 9"]


def test_memory_without_process_list_is_reported_without_error(device: Device) -> None:
    """As in some containers: whose it is cannot be known."""
    levels = IdleLevels(wait_seconds=0)
    levels.await_idle([DEVICE], pytest.fail)
    device.used = [2 * GIB]
    said: list[str] = []
    levels.await_idle([DEVICE], said.append)
    assert said == [
        f"{DEVICE}: 1024 MiB above its idle level: in use by a process that NVML does not list"
    ]


def test_idle_level_falls_when_memory_is_freed(device: Device) -> None:
    device.used = [3 * GIB]
    levels = session()
    levels.await_idle([DEVICE], pytest.fail)
    device.used = [GIB]
    levels.await_idle([DEVICE], pytest.fail)
    device.used = [2 * GIB]
    with pytest.raises(LauncherFailedError, match="1024 MiB above"):
        levels.await_idle([DEVICE], pytest.fail)


def test_idle_wait_without_devices_reports_nothing(device: Device) -> None:
    IdleLevels().await_idle([], pytest.fail)


class NoRanks:
    """A launcher whose ranks leave nothing."""

    name = "torchrun"

    def __init__(self) -> None:
        self.launches = 0

    def launch(
        self, job: Job, folder: Path, environment: dict[str, str], watch: Watchdog
    ) -> LaunchResult:
        self.launches += 1
        return LaunchResult(exit_codes={"rank 0": 1}, seconds=1.0, log=folder)

    def close(self) -> None:
        pass


def test_launch_on_device_above_idle_level_is_refused(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        assignment, "cuda_devices", lambda: (Card("NVIDIA H200", DEVICE, 141 * GIB),)
    )
    monkeypatch.setattr(idle, "WAIT_SECONDS", 0.0)
    launcher = NoRanks()
    asked = Options(
        root=Path(__file__).parents[2], report_folder=tmp_path, cache_folder=tmp_path,
        launcher="torchrun",
    )  # fmt: skip
    cells = runner.Runner(
        RankSetup(asked, lambda update: None),
        launchers={"torchrun": lambda: launcher},
        launch_hook=lambda job, folder: None,
        deadlines=lambda cell: deadlines("gpu"),
    )
    cell = replace(a_cell(), tier="gpu", strategy="ddp", world_size=1)
    with pytest.raises(RankCrashedError):
        cells.launch(cell, 0, 1)
    cells.idle.saw({DEVICE: DeviceReadings(before=SEEN, during=[SEEN])})
    device.used = [2 * GIB]
    with pytest.raises(LauncherFailedError, match=f"{cell.id}: {DEVICE}: 1024 MiB above"):
        cells.launch(cell, 0, 1)
    assert launcher.launches == 1
