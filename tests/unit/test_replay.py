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
from zerogate.devices.nvml import LaunchReadings, readings_path
from zerogate.launch.errors import LaunchFailedError, OutOfMemoryError, RankCrashedError
from zerogate.launch.launcher import LaunchResult
from zerogate.launch.record_file import read_record
from zerogate.launch.result import collect_records
from zerogate.metrics.device_use import LaunchRecords, device_use, host_source
from zerogate.metrics.measurement import measure
from zerogate.protocol.atomic_write import write_json
from zerogate.protocol.batch_search import Probe, Search, Tried
from zerogate.protocol.job import job_path, read_job
from zerogate.session.batch_size import LARGEST
from zerogate.verdicts.comparability import device_conditions

DATA = Path(__file__).parents[1] / "data" / "nvml"
GIB = 2**30


def readings(case: str) -> LaunchReadings:
    return from_json(LaunchReadings, readings_path(DATA / case).read_bytes())


def replay(case: str) -> LaunchRecords:
    """Return the launch as the controller aggregates it. Raises the LaunchFailedError."""
    folder = DATA / case
    job = a_job(folder, replace(a_cell(), tier="gpu"))
    if job_path(folder).exists():  # A card's own folder, from wherever it was.
        job = replace(read_job(job_path(folder)), record_folder=str(folder))
    records = collect_records(
        job, folder, LaunchResult(exit_codes={}, seconds=1.0, log=folder), "pytest"
    )
    return LaunchRecords(ranks=records, devices=readings(case).devices)


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
def test_replayed_device_memory_has_source_and_peaks(
    case: str, source: str, peaks: tuple[float, ...]
) -> None:
    uses = device_use(replay(case)).values()
    assert [use.source for use in uses] == [source, source]
    assert tuple(use.peak_bytes / GIB for use in uses) == pytest.approx(peaks, abs=0.01)


RECORDED = {
    "h200_blenderbot_zero2_0": None,
    "h200_blenderbot_zero2_1": (25_950_158_848, 25_528_631_296),
    "h200_deberta_zero2_0": (26_069_696_512, 26_082_279_424),
    "h200_deberta_zero2_1": (26_046_627_840, 26_048_724_992),
    "h200_deberta_zero2_2": (26_031_947_776, 26_031_947_776),
    "h200_gpt2xl_ddp_0": None,
    "h200_gpt2xl_zero3_offload_0": (26_273_120_256,),
    "h200_gpt2xl_zero3_offload_1": (26_105_348_096,),
    "h200_gpt2xl_zero3_offload_2": (25_956_450_304,),
}
"""Peaks of the processes of each launch that a card left; None if the lists, read once a second then,
missed them.
"""


def ended(case: str) -> LaunchRecords:
    """Return what the ranks and NVML told of a launch, however it ended."""
    paths = sorted((DATA / case).glob("rank*.json"))
    records = tuple(map(read_record, paths))
    return LaunchRecords(ranks=records, devices=readings(case).devices)


@pytest.mark.parametrize(("case", "peaks"), RECORDED.items())
def test_recorded_launches_of_one_host_have_one_source(
    case: str, peaks: tuple[int, ...] | None
) -> None:
    """Of these launches some had another source than the one before: the best that showed a peak."""
    launch = ended(case)
    assert host_source(launch) == "nvml_process"
    uses = device_use(launch).values()
    if peaks is not None:
        assert tuple(use.peak_bytes for use in uses) == peaks
    for use in uses:
        assert use.source == "nvml_process"
        assert bool(use.missing) == (peaks is None)
        assert ("whose allocator reserved" in use.missing) == (peaks is None)


def recorded_probe(case: str) -> tuple[Probe, list[Tried], int | None]:
    """Return what a recorded launch tried, what fitted, and the size that ran out, if one did."""
    request = read_job(job_path(DATA / case)).probe
    first = ended(case).ranks[0]
    assert request is not None
    tried = [
        Tried(one.size, one.peak_allocated_bytes, one.forward_bytes, first.budget_bytes)
        for one in first.probed
    ]
    failed = first.probing if first.outcome == "oom" else None
    return Probe(request.sizes, request.stop), tried, failed


def test_recorded_search_goes_on_beside_size_that_ran_out_late() -> None:
    """37 ran out late in one launch and fitted in the next, after which the card was asked for 2067."""
    search = Search(limit=LARGEST)
    for index in range(3):
        search.tell(*recorded_probe(f"h200_deberta_zero2_{index}"))
    probe = search.ask()
    assert probe is not None
    assert probe.sizes[0] == 38


def test_recorded_search_ends_in_three_launches() -> None:
    """The launches come in another order than on the card: a late failure is tried again first."""
    launches = {
        probe.sizes[0]: (tried, failed)
        for index in range(3)
        for probe, tried, failed in [recorded_probe(f"h200_gpt2xl_zero3_offload_{index}")]
    }
    search = Search(limit=LARGEST)
    while (probe := search.ask()) is not None:
        search.tell(probe, *launches[probe.sizes[0]])
    assert (search.answer, search.launches) == (33, 3)


def test_recorded_search_without_fitting_size_ends_in_one_launch() -> None:
    search = Search(limit=LARGEST)
    search.tell(*recorded_probe("h200_gpt2xl_ddp_0"))
    assert search.answer == 0


def test_all_launches_that_card_left_are_replayed() -> None:
    recorded = {
        folder.name for folder in DATA.iterdir() if readings(folder.name).origin == "recorded"
    }
    assert recorded == set(RECORDED)


@pytest.mark.parametrize(
    ("case", "kind", "named"),
    [
        ("out_of_memory", OutOfMemoryError, "rank 1"),
        ("missing_rank", RankCrashedError, "rank 1"),
    ],
)
def test_replayed_failure_has_error_kind_and_rank(
    case: str, kind: type[LaunchFailedError], named: str
) -> None:
    with pytest.raises(kind, match=named):
        replay(case)


@pytest.mark.parametrize(
    ("case", "condition"),
    [
        ("shared_device", "ranks share a device (topology: shared_device)"),
        ("somebody_else", "rank 0: process 77 was on the device too"),
    ],
)
def test_seconds_on_device_in_shared_use_are_not_comparable(case: str, condition: str) -> None:
    found = measure(replace(a_cell(), tier="gpu"), [replay(case)])
    assert device_conditions(found) == (condition,)


def test_shared_device_topology_is_setting() -> None:
    """So that they are never held to a baseline of ranks with a device each."""
    cell = replace(a_cell(), tier="gpu")
    assert measure(cell, [replay("shared_device")]).settings["topology"] == "shared_device"
    assert "topology" not in measure(cell, [replay("two_devices")]).settings


def test_launch_folder_with_own_job_is_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launch's folder as the controller leaves it: with its job, under a launch's own name."""
    shutil.copytree(DATA / "two_devices", tmp_path / "found")
    job = replace(a_job(Path("/where/it/was"), replace(a_cell(), tier="gpu")), launch_id="its own")
    write_json(job_path(tmp_path / "found"), job)
    for path in (tmp_path / "found").glob("rank*.json"):
        path.write_text(path.read_text().replace("this launch", "its own"))
    monkeypatch.setattr(sys.modules[__name__], "DATA", tmp_path)
    assert [use.source for use in device_use(replay("found")).values()] == ["nvml_process"] * 2


@pytest.mark.parametrize("folder", sorted(DATA.iterdir()), ids=lambda folder: folder.name)
def test_every_recorded_launch_can_be_replayed(folder: Path) -> None:
    """To its end, whichever that is: what is put here is looked at without being named."""
    assert all(use.source for use in device_use(ended(folder.name)).values())
    with suppress(LaunchFailedError):
        assert replay(folder.name) == ended(folder.name)


@pytest.mark.parametrize("folder", sorted(DATA.iterdir()), ids=lambda folder: folder.name)
def test_every_recorded_launch_names_origin_and_devices(folder: Path) -> None:
    assert readings(folder.name).origin in ("recorded", "hand-made")
    assert readings(folder.name).devices
