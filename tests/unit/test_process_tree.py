"""Ending a process and everything that it started, wherever that went."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import psutil
import pytest

from zerogate.launch import process_tree
from zerogate.launch.errors import LauncherFailedError
from zerogate.launch.process_tree import descendants, end

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a shell script; its stdout is a pipe. Whatever is left of it is killed in the end."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        for one in descendants([process.pid]):
            one.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def told(process: subprocess.Popen[str]) -> str:
    """The next line that ``process`` prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    "trap", [pytest.param("", id="willing"), pytest.param("trap '' TERM;", id="ignores SIGTERM")]
)
def test_grandchild_in_other_session_is_ended(start: Start, trap: str) -> None:
    child = start(f"{trap} setsid sleep 100 >/dev/null & echo $!; wait")
    grandchild = int(told(child))
    found = descendants([child.pid])
    assert {process.pid for process in found} == {child.pid, grandchild}
    end(found, grace_seconds=0.1)
    assert not is_alive(child.pid)
    assert not is_alive(grandchild)


def test_stopped_process_handles_sigterm_before_end(start: Start) -> None:
    child = start("trap 'echo tidied; kill $!; exit' TERM; sleep 100 & echo ready; wait")
    assert told(child) == "ready"
    os.kill(child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    end([psutil.Process(child.pid)], grace_seconds=10)
    assert not is_alive(child.pid)
    assert told(child) == "tidied"


def test_process_started_during_end_is_ended(start: Start) -> None:
    child = start(
        "trap 'setsid sleep 100 >/dev/null & echo $!' TERM; sleep 100 & echo ready; "
        "while :; do wait; done"
    )
    assert told(child) == "ready"
    end([psutil.Process(child.pid)], grace_seconds=1.0)
    assert not is_alive(child.pid)
    late = int(told(child))
    assert not is_alive(late)


def test_end_ignores_processes_already_gone(start: Start) -> None:
    child = start("exit 0")
    handle = psutil.Process(child.pid)
    child.wait()
    assert descendants([child.pid]) == []
    end([handle])
    end([])


def test_end_leaves_other_process_alive(start: Start) -> None:
    bystander, child = start("sleep 100 & echo $!; wait"), start("sleep 100 & echo $!; wait")
    told(bystander), told(child)
    end(descendants([child.pid]))
    assert not is_alive(child.pid)
    assert is_alive(bystander.pid)


# In a process of its own: being a subreaper is for life.
ADOPTS = """
import subprocess
from zerogate.launch.process_tree import children, end
from zerogate.protocol.prctl import adopt_orphans

adopt_orphans()
parent = subprocess.Popen(
    ["sh", "-c", "setsid sleep 100 >/dev/null 2>&1 & echo $!"], stdout=subprocess.PIPE, text=True
)
orphan = int(parent.communicate()[0])
print([process.pid for process in children()] == [orphan])
end(children())
print([process.pid for process in children()])
"""


def test_orphan_is_adopted_and_ended() -> None:
    result = subprocess.run(
        [sys.executable, "-c", ADOPTS], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.split() == ["True", "[]"]


# The first process inherits orphans and never asks for their status, like many a container's init.
NEVER_REAPS = """
import subprocess, sys
from zerogate.protocol.prctl import adopt_orphans

adopt_orphans()
subprocess.run([sys.executable, "-c", sys.argv[1]], check=True, timeout=20)
"""

ENDS_AN_ORPHAN = """
import subprocess, psutil
from zerogate.launch.process_tree import end

parent = subprocess.Popen(
    ["sh", "-c", "setsid sleep 100 >/dev/null 2>&1 & echo $!"], stdout=subprocess.PIPE, text=True
)
orphan = psutil.Process(int(parent.communicate()[0]))
end([orphan], grace_seconds=0.1)
print(orphan.status())
"""


def test_end_does_not_wait_for_unreaped_zombie() -> None:
    result = subprocess.run(
        [sys.executable, "-c", NEVER_REAPS, ENDS_AN_ORPHAN],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stdout.split() == ["zombie"]


class Stuck:
    """A process that waits in the kernel: no signal ends it."""

    pid = 4711

    def __init__(self) -> None:
        self.killed = 0

    def is_running(self) -> bool:
        return True

    def status(self) -> str:
        return psutil.STATUS_DISK_SLEEP

    def terminate(self) -> None: ...
    def resume(self) -> None: ...

    def kill(self) -> None:
        self.killed += 1

    def children(self, recursive: bool) -> list[psutil.Process]:
        return []

    def wait(self, timeout: float | None = None) -> None:
        raise psutil.TimeoutExpired(timeout, pid=self.pid)


def test_unkillable_process_raises_launcher_failed_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process_tree, "GIVE_UP_SECONDS", 0.01)
    stuck = Stuck()
    with pytest.raises(LauncherFailedError, match="process 4711: SIGKILL does not end it"):
        end([stuck], grace_seconds=0.0)  # type: ignore[list-item]
    assert stuck.killed
