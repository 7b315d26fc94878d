"""What a launch ended with is told apart: launchers, memory of both kinds, disks, hangs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from launch_ends import ended, failure, wrote
from records import a_failed_record, a_record

from zerogate.launch.errors import (
    DeadlineExceededError,
    DiskFailedError,
    HostOutOfMemoryError,
    LauncherFailedError,
    LaunchFailedError,
    RankCrashedError,
)
from zerogate.protocol.heartbeat import Pulse


@pytest.mark.parametrize("name", ["torchrun", "accelerate"])
def test_killed_launcher_is_reported_as_launcher_failure(tmp_path: Path, name: str) -> None:
    wrote(tmp_path, a_failed_record(0))
    error = failure(tmp_path, ended(tmp_path, **{name: -9}))
    assert isinstance(error, LauncherFailedError)
    assert f"{name}: killed by SIGKILL" in error.summary


def test_launcher_without_started_rank_is_reported_as_failure(tmp_path: Path) -> None:
    (tmp_path / "launch.log").write_text("no such option\n")
    error = failure(tmp_path, ended(tmp_path / "launch.log", torchrun=2))
    assert isinstance(error, LauncherFailedError)
    assert "no rank was started (torchrun: exit code 2)" in error.summary
    assert error.detail == "no such option"


def test_launcher_exit_after_heartbeat_is_reported_as_rank_crash(tmp_path: Path) -> None:
    Pulse(tmp_path, 0).beat("train", 1)
    assert isinstance(failure(tmp_path, ended(tmp_path, torchrun=1)), RankCrashedError)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        pytest.param(HostOutOfMemoryError, {"type": "MemoryError", "message": ""}, id="Python"),
        pytest.param(
            HostOutOfMemoryError,
            {
                "type": "RuntimeError",
                "message": "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't "
                "allocate memory: you tried to allocate 4 bytes. Error code 12",
            },
            id="torch",
        ),
        pytest.param(
            DiskFailedError,
            {"type": "OSError", "message": "[Errno 28] No space left on device"},
            id="disk",
        ),
        pytest.param(
            DeadlineExceededError,
            {
                "type": "RuntimeError",
                "message": "[../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out "
                "waiting 180000ms for recv operation to complete",
            },
            id="time, of a collective",
        ),
        pytest.param(
            RankCrashedError, {"type": "OSError", "message": "[Errno 5] I/O error"}, id="another"
        ),
    ],
)
def test_failed_record_is_classified_by_its_error(
    tmp_path: Path, kind: type[LaunchFailedError], values: dict[str, str]
) -> None:
    wrote(tmp_path, a_record(0), a_failed_record(1, **values))
    assert type(failure(tmp_path, ended(tmp_path, rank_0=0, rank_1=1))) is kind


def test_kernel_oom_kill_of_rank_is_reported_as_host_oom(tmp_path: Path) -> None:
    wrote(tmp_path, a_record(0))
    error = failure(tmp_path, ended(tmp_path, oom_kills=1, rank_0=0, rank_1=-9))
    assert isinstance(error, HostOutOfMemoryError)
    assert "rank 1 killed by the kernel" in error.summary


def test_segfault_beside_other_oom_kill_is_reported_as_crash(tmp_path: Path) -> None:
    wrote(tmp_path, a_record(0))
    error = failure(tmp_path, ended(tmp_path, oom_kills=1, rank_0=0, rank_1=-11))
    assert isinstance(error, RankCrashedError)
    assert "killed by SIGSEGV" in error.summary


def test_lost_store_connection_is_not_reported_as_cause(tmp_path: Path) -> None:
    lost = (
        "Failed to recv, got 0 bytes. Connection was likely closed. Did the remote server shutdown?"
    )
    wrote(tmp_path, a_failed_record(1, type="DistNetworkError", message=lost))
    error = failure(tmp_path, ended(tmp_path, rank_0=-9, rank_1=1))
    assert "rank 0 left without a record (rank 0: killed by SIGKILL" in error.summary


def test_missing_records_on_full_disk_are_reported_as_disk_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
    error = failure(tmp_path, ended(tmp_path, rank_0=1, rank_1=1))
    assert isinstance(error, DiskFailedError)
    assert f"{tmp_path}: no space left" in error.summary


def test_hang_failure_contains_stacks_of_ranks(tmp_path: Path) -> None:
    how = replace(ended(tmp_path, overdue="rank 1 in a step for 61 s"), stacks="rank 1: in loss")
    assert failure(tmp_path, how).detail == "rank 1: in loss"
