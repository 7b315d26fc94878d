"""Launches replayed from what NVML answered and what ranks wrote, in ``tests/data/nvml``.

A folder there is a launch's folder as a card's run leaves it; ``origin`` says whether a card's did.
"""

from __future__ import annotations

import shutil
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from records import a_cell, a_job

from zerogate.config.validation import from_json
from zerogate.launch.errors import LaunchFailedError, OutOfMemoryError, RankCrashedError
from zerogate.launch.launcher import LaunchResult
from zerogate.launch.result import collect_records
from zerogate.metrics.device_use import Readings, readings_path, with_device_use
from zerogate.metrics.measurement import measure
from zerogate.protocol.atomic_write import write_json
from zerogate.protocol.record import RankRecord, job_path, read_job

DATA = Path(__file__).parents[1] / "data" / "nvml"
GIB = 2**30


def readings(case: str) -> Readings:
    return from_json(Readings, readings_path(DATA / case).read_bytes())


def replay(case: str) -> tuple[RankRecord, ...]:
    """The records of the launch, with what the controller adds. Raises the LaunchFailedError."""
    folder = DATA / case
    job = a_job(folder, replace(a_cell(), tier="gpu"))
    if job_path(folder).exists():  # A card's own folder, from wherever it was.
        job = replace(read_job(job_path(folder)), record_folder=str(folder))
    records = collect_records(
        job, folder, LaunchResult(exit_codes={}, seconds=1.0, log=folder), "pytest"
    )
    return with_device_use(records, readings(case).devices)


@pytest.mark.parametrize(
    ("case", "source", "peaks"),
    [
        ("two_devices", "nvml_process", (12.0, 11.5)),
        ("host_pids", "nvml_process_by_elimination", (12.0, 11.5)),
        # A process that is listed without its memory is somebody, and may be a stranger's.
        ("zero_bytes", "nvml_device_delta", (12.0, 11.5)),
        ("memory_not_told", "nvml_device_delta", (12.0, 11.5)),
        ("mig_slice", "nvml_process", (12.0, 12.0)),
        ("shared_device", "nvml_process", (12.0, 11.5)),
        ("somebody_else", "nvml_process", (12.0, 11.5)),
    ],
)
def test_where_memory_comes_from(case: str, source: str, peaks: tuple[float, ...]) -> None:
    devices = [record.device for record in replay(case) if record.device]
    assert [device.source for device in devices] == [source, source]
    assert tuple(device.peak_bytes / GIB for device in devices) == pytest.approx(peaks, abs=0.01)


@pytest.mark.parametrize(
    ("case", "kind", "named"),
    [
        ("out_of_memory", OutOfMemoryError, "rank 1"),
        ("missing_rank", RankCrashedError, "rank 1"),
    ],
)
def test_what_a_launch_failed_with(case: str, kind: type[LaunchFailedError], named: str) -> None:
    with pytest.raises(kind, match=named):
        replay(case)


@pytest.mark.parametrize(
    ("case", "trouble"),
    [
        ("shared_device", "ranks share a device (topology: shared_device)"),
        ("somebody_else", "rank 0: process 77 was on the device too"),
    ],
)
def test_what_makes_seconds_worthless(case: str, trouble: str) -> None:
    found = measure(replace(a_cell(), tier="gpu"), [replay(case)])
    assert found.troubles == (trouble,)


def test_shared_devices_are_a_setting() -> None:
    """So that they are never held to a baseline of ranks with a device each."""
    cell = replace(a_cell(), tier="gpu")
    assert measure(cell, [replay("shared_device")]).settings["topology"] == "shared_device"
    assert "topology" not in measure(cell, [replay("two_devices")]).settings


def test_a_cards_own_folder_is_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch's folder as the controller leaves it: with its job, under a launch's own name."""
    shutil.copytree(DATA / "two_devices", tmp_path / "found")
    job = replace(a_job(Path("/where/it/was"), replace(a_cell(), tier="gpu")), launch_id="its own")
    write_json(job_path(tmp_path / "found"), job)
    for path in (tmp_path / "found").glob("rank*.json"):
        path.write_text(path.read_text().replace("this launch", "its own"))
    monkeypatch.setattr(sys.modules[__name__], "DATA", tmp_path)
    assert [one.device.source for one in replay("found") if one.device] == ["nvml_process"] * 2


@pytest.mark.parametrize("folder", sorted(DATA.iterdir()), ids=lambda folder: folder.name)
def test_every_launch_is_replayed(folder: Path) -> None:
    """To its end, whichever that is: what is put here is looked at without being named."""
    with suppress(LaunchFailedError):
        assert all(record.device and record.device.source for record in replay(folder.name))


@pytest.mark.parametrize("folder", sorted(DATA.iterdir()), ids=lambda folder: folder.name)
def test_every_answer_says_whose_it_is(folder: Path) -> None:
    assert readings(folder.name).origin in ("recorded", "hand-made")
    assert readings(folder.name).devices
