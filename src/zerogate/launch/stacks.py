"""Python stacks of every rank of a launch, taken before the launch is ended.

py-spy reads them from outside, also from a stopped rank, if it is installed and may attach. Else
the rank's own faulthandler writes them on a signal, which does not need the interpreter lock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

import psutil

from zerogate.launch.watchdog import Watchdog
from zerogate.protocol.heartbeat import Heartbeat, stacks_path

ATTACH_SECONDS = 3.0
ANSWER_SECONDS = 2.0
LINES = 40
"""Lines of a rank's stacks in a report; the file has all of them."""


def where_ranks_stand(watchdog: Watchdog, ours: Collection[int]) -> str:
    """Return the last heartbeat and the stacks of every rank, as text.

    ``ours`` are the pids of the launch's processes: a heartbeat's pid gets a signal only if it is
    one of them.
    """
    parts = []
    now = time.monotonic()
    for rank, beat in watchdog.heartbeats().items():
        if beat is None:
            parts.append(f"rank {rank}: no heartbeat")
            continue
        known = beat.pid in ours
        state = ", stopped" if known and _is_stopped(beat.pid) else ""
        lines = _stacks(watchdog.folder, rank, beat) if known else ["  (its process has ended)"]
        head = f"rank {rank}, pid {beat.pid}{state}: {beat.phase}, {beat.step} done, "
        parts += [f"{head}last heartbeat {beat.age_seconds(now):.0f} s ago", *lines]
    return "\n".join(parts)


def _stacks(folder: Path, rank: int, beat: Heartbeat) -> list[str]:
    path = stacks_path(folder, rank)
    lines = _from_outside(beat.pid).splitlines()
    if lines:
        with contextlib.suppress(OSError):
            path.write_text("\n".join(lines) + "\n")
        shown = lines[:LINES]
    else:
        lines = _from_inside(path, beat.pid).splitlines()
        shown = lines[-LINES:]  # The main thread comes last.
    if not lines:
        return ["  (no stacks: the rank did not answer)"]
    return [f"  {line}" for line in shown] + (
        [f"  (complete: {path})"] if len(shown) < len(lines) else []
    )


def py_spy() -> str | None:
    """Return the path of py-spy, in this environment or on PATH; None if it is not installed."""
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return shutil.which("py-spy", path=search)


def _from_outside(pid: int) -> str:
    tool = py_spy()
    if tool is None:
        return ""
    try:
        found = subprocess.run(
            [tool, "dump", "--pid", str(pid)],
            check=False,
            capture_output=True,
            text=True,
            timeout=ATTACH_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout if found.returncode == 0 else ""


def _from_inside(path: Path, pid: int) -> str:
    """Return the stacks that the rank's faulthandler writes: all, once the file stops growing."""
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGUSR1)
        os.kill(pid, signal.SIGCONT)  # A stopped process cannot answer.
    give_up = time.monotonic() + ANSWER_SECONDS
    seen = ""
    while time.monotonic() < give_up:
        time.sleep(0.1)
        text = path.read_text(errors="replace") if path.exists() else ""
        if text and text == seen:
            break
        seen = text
    return seen


def _is_stopped(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    return False
