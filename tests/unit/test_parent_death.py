"""A rank leaves with the controller that asked for it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from zerogate.worker.parent_death import CONTROLLER_GONE

RANK = """
import sys
from zerogate.worker.parent_death import exit_with_controller
exit_with_controller(int(sys.argv[1]))
print("training", flush=True)
sys.stdin.read()
"""

WITHOUT_PIDFD = """
import os, sys
from zerogate.worker import parent_death
def absent(pid): raise OSError(38, "Function not implemented")
os.pidfd_open, parent_death.POLL_SECONDS = absent, 0.05
parent_death.exit_with_controller(int(sys.argv[1]))
print("training", flush=True)
sys.stdin.read()
"""

COMPILING = """
import subprocess, sys
from zerogate.worker.parent_death import exit_with_controller
exit_with_controller(int(sys.argv[1]), with_group=True)
with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as compiler:
    print(compiler.pid, flush=True)
    compiler.wait()
"""


@pytest.fixture
def controller() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until its stdin is closed."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def start_rank(controller_pid: int, code: str = RANK) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(controller_pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("code", [RANK, WITHOUT_PIDFD], ids=["pidfd", "without pidfd"])
@pytest.mark.parametrize("how", ["leaves", "is killed"])
def test_rank_ends_when_controller_ends(
    controller: subprocess.Popen[bytes], how: str, code: str
) -> None:
    with start_rank(controller.pid, code) as rank:
        assert rank.stdout is not None
        assert rank.stdout.readline() == "training\n"
        if how == "leaves":
            assert controller.stdin is not None
            controller.stdin.close()
        else:
            controller.send_signal(signal.SIGKILL)
        assert rank.wait(timeout=60) == CONTROLLER_GONE == 75


def test_rank_of_ended_controller_does_not_start(
    controller: subprocess.Popen[bytes],
) -> None:
    controller.kill()
    controller.wait()
    with start_rank(controller.pid) as rank:
        assert rank.communicate(timeout=60) == ("", None)
        assert rank.returncode == CONTROLLER_GONE


def test_rank_of_running_controller_exits_normally(
    controller: subprocess.Popen[bytes],
) -> None:
    with start_rank(controller.pid) as rank:
        assert rank.communicate(timeout=60) == ("training\n", None)
        assert rank.returncode == 0


def test_compiler_ends_when_controller_is_killed(controller: subprocess.Popen[bytes]) -> None:
    with start_rank(controller.pid, COMPILING) as server:
        assert server.stdout is not None
        compiler = psutil.Process(int(server.stdout.readline()))
        controller.send_signal(signal.SIGKILL)
        assert server.wait(timeout=60) == CONTROLLER_GONE
        gone, _ = psutil.wait_procs([compiler], timeout=60)
        assert gone == [compiler]


def test_compiler_ends_when_kernel_ends_its_server_first(
    controller: subprocess.Popen[bytes],
) -> None:
    """The kernel sends it SIGTERM when the controller dies (PR_SET_PDEATHSIG)."""
    with start_rank(controller.pid, COMPILING) as server:
        assert server.stdout is not None
        compiler = psutil.Process(int(server.stdout.readline()))
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == CONTROLLER_GONE
        gone, _ = psutil.wait_procs([compiler], timeout=60)
        assert gone == [compiler]
