"""Commands beside the launches leave nothing, however they or their caller end."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from zerogate.launch.process_tree import run_helper

WITH_CHILD = """
import subprocess, sys
child = subprocess.Popen(["sleep", "1000"])
with open(sys.argv[1], "w") as pids:
    pids.write(str(child.pid))
child.wait()
"""


def test_run_helper_returns_output_and_exit_code(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd()); sys.exit(3)"
    done = run_helper([sys.executable, "-c", code], os.environ, 60, folder=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (3, str(tmp_path))


def test_run_helper_timeout_ends_child_processes(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(subprocess.TimeoutExpired):
        run_helper([sys.executable, "-c", WITH_CHILD, str(pids)], os.environ, 3)
    assert not psutil.pid_exists(int(pids.read_text()))


def test_run_helper_that_is_killed_leaves_no_child_processes(tmp_path: Path) -> None:
    """As by the kernel, for lack of memory: its children are nobody's then."""
    pids = tmp_path / "pids"
    code = WITH_CHILD.replace("child.wait()", "import os; os.kill(os.getpid(), 9)")
    done = run_helper([sys.executable, "-c", code, str(pids)], os.environ, 60)
    assert done.returncode == -9
    with suppress(psutil.NoSuchProcess):
        assert psutil.Process(int(pids.read_text())).status() == psutil.STATUS_ZOMBIE


def test_run_helper_process_ends_when_caller_is_killed() -> None:
    code = (
        "import os; from zerogate.launch.process_tree import run_helper; print('going', flush=True); "
        "run_helper(['sleep', '1000'], os.environ, 1000)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "going\n"
        own = psutil.Process(caller.pid)
        while not (helpers := own.children()):
            assert caller.poll() is None
        caller.kill()
    gone, _ = psutil.wait_procs(helpers, timeout=30)
    assert gone == helpers
