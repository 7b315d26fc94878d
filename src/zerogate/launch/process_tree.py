"""Process trees: end a process and everything that it started.

torchrun puts every rank into a session of its own, so ending a process group leaves ranks behind.
They keep their memory and spoil the next cell. Here descendants are found by handle, never by
name, and orphans among them become children of this process (it is made their subreaper).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import psutil

from zerogate.launch.errors import LauncherFailedError
from zerogate.protocol.prctl import signal_at_parent_death

GRACE_SECONDS = 3.0
GIVE_UP_SECONDS = 60.0
"""Longest wait after SIGKILL: a process that outlives it is stuck in the kernel, waiting for a lost
card or a file server."""


_helpers: set[int] = set()
"""Pids of the helpers that run now. A launch that ends what it left must leave them alone."""


def children() -> set[psutil.Process]:
    """Return every living descendant of this process, but no ``Helper`` and nothing below one."""
    own = [child.pid for child in psutil.Process().children() if child.pid not in _helpers]
    return {found for found in descendants(own) if _alive(found)}


def descendants(roots: Iterable[int]) -> list[psutil.Process]:
    """Return the processes ``roots`` (pids) that exist and all their descendants, parents first."""
    found: list[psutil.Process] = []
    for pid in roots:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            found += [process, *process.children(recursive=True)]
    return found


def end(processes: Iterable[psutil.Process], *, grace_seconds: float = GRACE_SECONDS) -> None:
    """Send SIGTERM, then SIGKILL to those left after ``grace_seconds``; return once all are gone.

    Stopped processes are continued so that SIGTERM reaches them. Processes that they started in the
    meantime are found and ended too. Raises LauncherFailedError if one outlives GIVE_UP_SECONDS.
    """
    waiting = [process for process in processes if _alive(process)]
    for process in waiting:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
            process.resume()
    _, alive = psutil.wait_procs(waiting, timeout=grace_seconds)
    give_up = time.monotonic() + GIVE_UP_SECONDS
    # A zombie that its parent never reaps counts as ended.
    while alive := [process for process in alive if _alive(process)]:
        if time.monotonic() > give_up:
            raise LauncherFailedError(
                f"process {', '.join(str(process.pid) for process in alive)}: SIGKILL does not end "
                "it; it waits in the kernel for a device or a file server; check dmesg, and "
                "restart that device or server, or the machine"
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


def run_helper(
    command: Sequence[str],
    environment: Mapping[str, str],
    seconds: float,
    *,
    folder: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` in ``folder`` and return its output.

    All that it started is ended in every case, also after ``seconds`` or an interrupt. If this
    process is killed, the command gets SIGTERM. Raises subprocess.TimeoutExpired after ``seconds``.
    """
    return Helper(command, environment, folder=folder).result(seconds)


class Helper:
    """A command that runs beside this process, and beside launches, until it ends or is ended.

    If this process is killed, the command gets SIGTERM.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, folder: Path | None = None
    ) -> None:
        self._command = command
        # Files, since nobody reads a pipe until the end.
        self._output = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._messages = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._messages,
            start_new_session=True,
            # Safe in a threaded process: it takes no lock that another thread could hold.
            preexec_fn=partial(_end_with, os.getpid()),  # noqa: PLW1509
        )
        _helpers.add(self._process.pid)

    def is_running(self) -> bool:
        return self._process.poll() is None

    def result(self, seconds: float) -> subprocess.CompletedProcess[str]:
        """Wait for the end and return the output; end all that the command started, in every case.

        Raises subprocess.TimeoutExpired after ``seconds``.
        """
        try:
            code = self._process.wait(seconds)
            self._output.seek(0)
            self._messages.seek(0)
            return subprocess.CompletedProcess(
                self._command, code, self._output.read(), self._messages.read()
            )
        finally:
            self.end()

    def end(self) -> None:
        """End the command and everything that it started, also if the command has ended before."""
        end({*descendants([self._process.pid]), *_in_session(self._process.pid)})
        self._process.wait()
        _helpers.discard(self._process.pid)
        self._output.close()
        self._messages.close()


def _in_session(number: int) -> Iterator[psutil.Process]:
    """Yield the living processes of a session (setsid), which its leader may have left."""
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == number and _alive(process):
                yield process


def _end_with(caller: int) -> None:
    """Have the kernel send SIGTERM to this child when ``caller`` ends; exit if it already has."""
    signal_at_parent_death(signal.SIGTERM)
    if os.getppid() != caller:
        os._exit(1)


SHARED_MEMORY = Path("/dev/shm")

NAMED_BY_PID = re.compile(r"(?:torch|__KMP_REGISTERED_LIB)_(\d+)(?!\d)")
"""Names of the segments of torch and OpenMP. Other names do not tell the owner: those stay."""


def remove_shared_memory(pids: Collection[int]) -> list[Path]:
    """Remove the shared memory segments of ``pids``, which have ended; return those removed."""
    left = []
    with contextlib.suppress(OSError):
        for path in sorted(SHARED_MEMORY.iterdir()):
            owner = NAMED_BY_PID.match(path.name)
            if owner and int(owner[1]) in pids:
                path.unlink(missing_ok=True)
                left.append(path)
    return left
