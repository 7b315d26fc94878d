"""A launch on two devices from its start to what is measured, with an NVML that is made by hand: the
runner, its locks, the thread that reads, the records and the folder that is left for replay.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock, Timeout
from records import a_cell, a_failed_record, a_record

from tests.made_nvml import MadeNVML
from zerogate.config.options import Options
from zerogate.config.validation import from_json
from zerogate.devices import cards, nvml
from zerogate.devices.nvml import LaunchReadings, readings_path
from zerogate.launch.deadlines import deadlines
from zerogate.launch.errors import OutOfMemoryError
from zerogate.launch.launcher import LaunchResult
from zerogate.launch.result import collect_records
from zerogate.launch.watchdog import Watchdog
from zerogate.metrics.device_use import LaunchRecords, device_use
from zerogate.metrics.measurement import measure
from zerogate.protocol.atomic_write import write_json
from zerogate.protocol.job import Job, ProbeRequest, job_path, read_job
from zerogate.protocol.record import Device, RankRecord, record_path
from zerogate.session import runner
from zerogate.session.rank_setup import RankSetup

GIB = 2**30
CELL = replace(a_cell("ddp"), tier="gpu")
UUIDS = ("GPU-a1", "GPU-b2")
PIDS = (100, 101)


class TwoDevices(MadeNVML):
    """Two devices with half a GiB in use; while ranks run, 12 and 11 GiB more."""

    uuids = UUIDS
    name = "NVIDIA H200"
    total_bytes = 141 * GIB
    idle_bytes = GIB // 2
    driver_bytes = GIB // 4
    had = (12 * GIB, 11 * GIB)

    def __init__(self) -> None:
        super().__init__()
        self.running = False
        self.lists = dict.fromkeys(UUIDS, 0)
        self.read = threading.Condition()

    def processes(self, uuid: str) -> dict[int, int]:
        place = UUIDS.index(uuid)
        return {PIDS[place]: self.had[place]} if self.running else {}

    def nvmlDeviceGetComputeRunningProcesses(self, uuid: str) -> list[SimpleNamespace]:
        found = super().nvmlDeviceGetComputeRunningProcesses(uuid)
        with self.read:
            self.lists[uuid] += len(found)
            self.read.notify_all()
        return found

    def await_lists(self) -> None:
        """Until the processes of both devices were listed while ranks ran."""
        with self.read:
            assert self.read.wait_for(lambda: all(self.lists.values()), 30)


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoDevices]:
    found = TwoDevices()
    monkeypatch.setitem(sys.modules, "pynvml", found)  # type: ignore[arg-type]
    monkeypatch.setattr(nvml, "MEMORY_SECONDS", 0.001)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cards._query_driver.cache_clear()
    yield found
    cards._query_driver.cache_clear()
    assert not [one for one in threading.enumerate() if one.name == "zerogate-nvml"]


Written = Callable[[int, Job], RankRecord]


def trained(rank: int, job: Job) -> RankRecord:
    """What a rank on its device writes that trained."""
    uuid = UUIDS[rank].removeprefix("GPU-")  # As torch has it.
    device = Device(uuid=uuid, pid=PIDS[rank], peak_reserved_bytes=10 * GIB)
    return a_record(rank, launch_id=job.launch_id, device=device, applied={})


def free(uuid: str) -> bool:
    """Whether another session could measure on the device now."""
    lock = FileLock(Path(tempfile.gettempdir()) / "zerogate-locks" / f"{uuid}.lock")
    try:
        with lock.acquire(timeout=0):
            return True
    except Timeout:
        return False


class Ranks:
    """A launcher whose ranks run until NVML has listed them, and write ``written``."""

    name = "torchrun"

    def __init__(self, devices: TwoDevices, written: Written, exit_code: int = 0) -> None:
        self.devices, self.written, self.exit_code = devices, written, exit_code
        self.locked: list[bool] = []

    def launch(
        self, job: Job, folder: Path, environment: dict[str, str], watch: Watchdog
    ) -> LaunchResult:
        self.locked = [not free(uuid) for uuid in UUIDS]
        self.devices.running = True
        self.devices.await_lists()
        for rank in range(2):
            write_json(record_path(folder, rank), self.written(rank, job))
        self.devices.running = False
        codes = {f"rank {rank}": self.exit_code for rank in range(2)}
        return LaunchResult(exit_codes=codes, seconds=1.0, log=folder / "log.txt")

    def close(self) -> None: ...


def run(folder: Path, ranks: Ranks) -> runner.Runner:
    asked = Options(
        root=Path(__file__).parents[2], report_folder=folder, cache_folder=folder,
        launcher="torchrun",
    )  # fmt: skip
    return runner.Runner(
        RankSetup(asked, lambda update: None),
        launchers={"torchrun": lambda: ranks},
        launch_hook=lambda job, folder: None,
        deadlines=lambda cell: deadlines("gpu"),
    )


def test_launch_locks_devices_and_records_nvml_peaks(devices: TwoDevices, tmp_path: Path) -> None:
    ranks = Ranks(devices, trained)
    launched = run(tmp_path, ranks).launch(CELL, 0, 1)
    assert ranks.locked == [True, True], "alone on its devices"
    assert all(map(free, UUIDS))
    found = list(device_use(launched).values())
    assert [(one.source, one.peak_bytes) for one in found] == [
        ("nvml_process", 12 * GIB),
        ("nvml_process", 11 * GIB),
    ]
    assert [one.driver_bytes for one in found] == [GIB // 4] * 2
    assert [one.events for one in found] == [(), ()]
    assert measure(CELL, [launched]).value("peak_device_bytes") == 12 * GIB


def test_launch_folder_is_replayed_to_same_records(devices: TwoDevices, tmp_path: Path) -> None:
    launched = run(tmp_path, Ranks(devices, trained)).launch(CELL, 0, 1)
    folder = next(tmp_path.rglob("nvml.json")).parent
    job = read_job(job_path(folder))
    told = from_json(LaunchReadings, readings_path(folder).read_bytes())
    assert told.origin == "recorded"
    assert set(told.devices) == set(UUIDS)
    again = collect_records(
        job, folder, LaunchResult(exit_codes={}, seconds=1.0, log=folder), "pytest"
    )
    assert told.source == "nvml_process"
    assert LaunchRecords(ranks=again, devices=told.devices, source=told.source) == launched


def test_host_keeps_source_that_its_first_launch_chose(
    devices: TwoDevices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = run(tmp_path, Ranks(devices, trained))
    cells.launch(CELL, 0, 2)
    monkeypatch.setattr(devices, "had", (9 * GIB, 9 * GIB))  # The lists miss the peaks.
    later = cells.launch(CELL, 1, 2)
    assert [use.source for use in device_use(later).values()] == ["nvml_process"] * 2
    assert "peak_device_bytes" not in measure(CELL, [later]).names
    again = run(tmp_path / "another session", Ranks(devices, trained)).launch(CELL, 0, 1)
    assert again.source == "nvml_process"


def test_resumed_launch_keeps_source_for_launches_after_it(
    devices: TwoDevices, tmp_path: Path
) -> None:
    run(tmp_path, Ranks(devices, trained)).launch(CELL, 0, 2)
    path = next(tmp_path.rglob("nvml.json"))
    told = from_json(LaunchReadings, path.read_bytes())
    write_json(path, replace(told, source="nvml_device_delta"))
    cells = run(tmp_path, Ranks(devices, trained))
    cells.resume()
    assert cells.launch(CELL, 0, 2).source == "nvml_device_delta"
    assert cells.resumed_launches == 1
    assert cells.launch(CELL, 1, 2).source == "nvml_device_delta"


def test_launch_on_throttled_devices_names_each_rank(devices: TwoDevices, tmp_path: Path) -> None:
    devices.reasons = 0x40
    launched = run(tmp_path, Ranks(devices, trained)).launch(CELL, 0, 1)
    event = "the device was throttled (hw_thermal)"
    found = measure(CELL, [launched]).device_events
    assert found == (f"rank 0: {event}", f"rank 1: {event}")


def test_probe_out_of_memory_leaves_nvml_readings(devices: TwoDevices, tmp_path: Path) -> None:
    def out_of_memory(rank: int, job: Job) -> RankRecord:
        failed = a_failed_record(rank, outcome="oom", type="OutOfMemoryError")
        return replace(failed, launch_id=job.launch_id)

    cells = run(tmp_path, Ranks(devices, out_of_memory, exit_code=1))
    with pytest.raises(OutOfMemoryError):
        cells.probe(CELL, ProbeRequest(kind="train", sizes=(1,)), 0)
    told = from_json(LaunchReadings, next(tmp_path.rglob("nvml.json")).read_bytes())
    peaks = [max(one.used_bytes for one in device.during) for device in told.devices.values()]
    assert peaks == [GIB // 2 + size for size in devices.had]


def test_launch_on_unwatched_device_has_no_device_peak(devices: TwoDevices, tmp_path: Path) -> None:
    def elsewhere(rank: int, job: Job) -> RankRecord:
        record = trained(rank, job)
        assert record.device is not None
        return replace(record, device=replace(record.device, uuid="c3"))

    launched = run(tmp_path, Ranks(devices, elsewhere)).launch(CELL, 0, 1)
    found = measure(CELL, [launched])
    assert all("was not watched" in event for event in found.device_events)
    assert "peak_device_bytes" not in found.launches[0].values
