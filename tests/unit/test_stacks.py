"""Where a stuck rank stands: asked of a process that does nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from records import a_job

from zerogate.launch import stacks
from zerogate.launch.deadlines import Deadlines
from zerogate.launch.stacks import where_ranks_stand
from zerogate.launch.watchdog import Watchdog

RANK = """
import faulthandler, signal, sys, threading
from pathlib import Path
from zerogate.protocol.heartbeat import Pulse, stacks_path
folder = Path(sys.argv[1])
faulthandler.register(signal.SIGUSR1, file=stacks_path(folder, 1).open("w"), all_threads=True)
def stuck_in_a_collective():
    Pulse(folder, 1).beat("train", 3)
    print("there", flush=True)
    threading.Event().wait()
stuck_in_a_collective()
"""


@pytest.fixture
def rank(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", RANK, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        yield process
        process.kill()


@pytest.fixture
def _without_py_spy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks.shutil, "which", lambda *arguments, **options: None)


def report(folder: Path, *ours: int) -> str:
    return where_ranks_stand(Watchdog(a_job(folder), folder, Deadlines(launch=9.0)), set(ours))


@pytest.mark.usefixtures("_without_py_spy")
@pytest.mark.parametrize("stopped", [False, True])
def test_rank_without_py_spy_dumps_its_own_stack(
    rank: subprocess.Popen[str], tmp_path: Path, stopped: bool
) -> None:
    if stopped:
        os.kill(rank.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, rank.pid, os.WSTOPPED | os.WNOWAIT)
    text = report(tmp_path, rank.pid)
    state = ", stopped" if stopped else ""
    assert f"rank 1, pid {rank.pid}{state}: train, 3 done, last heartbeat 0 s ago" in text
    assert "in stuck_in_a_collective" in text
    assert "rank 0: no heartbeat" in text


def test_installed_py_spy_is_used_first(
    rank: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "py-spy"
    tool.write_text('#!/bin/sh\necho "$@: as seen from outside"\n')
    tool.chmod(0o755)
    monkeypatch.setattr(stacks.shutil, "which", lambda *arguments, **options: str(tool))
    assert f"  dump --pid {rank.pid}: as seen from outside" in report(tmp_path, rank.pid)


@pytest.mark.parametrize("end", ["exit 1", "echo nothing >&2"], ids=["refused", "silent"])
def test_rank_dumps_its_own_stack_if_py_spy_fails(
    rank: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    tool = tmp_path / "py-spy"
    tool.write_text(f"#!/bin/sh\n{end}\n")
    tool.chmod(0o755)
    monkeypatch.setattr(stacks.shutil, "which", lambda *arguments, **options: str(tool))
    assert "in stuck_in_a_collective" in report(tmp_path, rank.pid)


@pytest.mark.usefixtures("_without_py_spy")
def test_other_process_is_not_signalled_for_stacks(
    rank: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert "(its process has ended)" in report(tmp_path)
    assert not (tmp_path / "rank1.stacks").read_text()


@pytest.mark.usefixtures("_without_py_spy")
def test_killed_rank_is_reported_without_stacks(
    tmp_path: Path, rank: subprocess.Popen[str]
) -> None:
    rank.kill()
    rank.wait()
    assert not psutil.pid_exists(rank.pid)
    assert "(no stacks: the rank did not answer)" in report(tmp_path, rank.pid)
