"""A process and everything it started, ended for certain.

torchrun puts every rank into a session of its own, so ending a process group leaves ranks behind;
they keep their memory and poison the next cell. Here descendants are found by handle, never by
name, and orphans among them come back to this process (it is made their subreaper).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

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


LIBC = ctypes.CDLL(None)
"""Loaded here: between fork and exec there is no time for it."""
PR_SET_PDEATHSIG = 1


def run_helper(
    command: Sequence[str],
    environment: Mapping[str, str],
    seconds: float,
    *,
    folder: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` in ``folder``. Late or interrupted, nothing that it started stays; when this
    process is killed, it is told to end.

    Raises subprocess.TimeoutExpired.
    """
    with subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # It takes no lock that another thread could hold.
        preexec_fn=partial(_end_with, os.getpid()),  # noqa: PLW1509
    ) as process:
        try:
            output, messages = process.communicate(timeout=seconds)
        finally:
            end(descendants([process.pid]))
    return subprocess.CompletedProcess(command, process.returncode, output, messages)


def _end_with(caller: int) -> None:
    """In the child: be told when ``caller`` is gone, or leave at once where it is already."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != caller:
        os._exit(1)


SHARED_MEMORY = Path("/dev/shm")

NAMED_BY_PID = re.compile(r"(?:torch|__KMP_REGISTERED_LIB)_(\d+)(?!\d)")
"""How torch and OpenMP name theirs. Others' names do not say whose they are: they stay."""


def remove_shared_memory(pids: Collection[int]) -> list[Path]:
    """Remove the segments of ``pids``, processes that have ended; those removed."""
    left = []
    with contextlib.suppress(OSError):
        for path in sorted(SHARED_MEMORY.iterdir()):
            owner = NAMED_BY_PID.match(path.name)
            if owner and int(owner[1]) in pids:
                path.unlink(missing_ok=True)
                left.append(path)
    return left
