"""A process and everything it started, ended for certain.

torchrun puts every rank into a session of its own, so ending a process group leaves ranks behind;
they keep their memory and poison the next cell. Here descendants are found by handle, never by
name, and orphans among them come back to this process (it is made their subreaper).
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Iterable

import psutil

from zerogate.launch.errors import LauncherFailedError

PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 3.0
GIVE_UP_SECONDS = 60.0
"""What outlives this much SIGKILL waits in the kernel, for a lost card or a file server."""


def adopt_orphans() -> None:
    """Have descendants whose parent ended become children of this process, not of init."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> set[psutil.Process]:
    """Every living descendant of this process."""
    return {found for found in psutil.Process().children(recursive=True) if _alive(found)}


def descendants(roots: Iterable[int]) -> list[psutil.Process]:
    """The living processes ``roots`` (pids) and all that they started, parents first."""
    found: list[psutil.Process] = []
    for pid in roots:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            found += [process, *process.children(recursive=True)]
    return found


def end(processes: Iterable[psutil.Process], *, grace_seconds: float = GRACE_SECONDS) -> None:
    """SIGTERM, then SIGKILL for what is left after ``grace_seconds``; returns once all are gone. Raises
    LauncherFailedError where one cannot be ended.

    Stopped processes are continued so that SIGTERM reaches them. What the processes started in the
    meantime is found and ended too.
    """
    waiting = [process for process in processes if _alive(process)]
    for process in waiting:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
            process.resume()
    _, alive = psutil.wait_procs(waiting, timeout=grace_seconds)
    give_up = time.monotonic() + GIVE_UP_SECONDS
    # A zombie that its parent never reaps is as dead as it gets.
    while alive := [process for process in alive if _alive(process)]:
        if time.monotonic() > give_up:
            raise LauncherFailedError(
                f"process {', '.join(str(process.pid) for process in alive)} does not end by SIGKILL: "
                "it waits in the kernel for a device or a file server; see dmesg, and restart what "
                "it waits for, or the machine"
            )
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                alive = [*alive, *process.children(recursive=True)]
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _, alive = psutil.wait_procs(alive, timeout=1.0)


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
