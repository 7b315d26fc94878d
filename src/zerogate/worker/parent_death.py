"""Exit with the controller: no process that it started outlives it."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from contextlib import suppress

CONTROLLER_GONE = 75
POLL_SECONDS = 1.0


def exit_with_controller(controller_pid: int, *, with_group: bool = False) -> None:
    """End this process as soon as the controller has ended, for whatever reason.

    A thread waits on a pidfd: there is no polling, and it also ends ranks that hang in a collective.
    ``with_group`` also sends SIGTERM to the process group that this process leads: ninja runs every
    compiler in a group of its own and ends them only on a signal. It does so on SIGTERM too, which the
    kernel may send when the controller ends, before the thread has noticed.
    """
    if with_group:
        signal.signal(signal.SIGTERM, lambda number, frame: _exit_with_group())
    watched: int | None
    try:
        watched = os.pidfd_open(controller_pid)
    except ProcessLookupError:
        os._exit(CONTROLLER_GONE)
    except OSError:  # This kernel or sandbox (gVisor) has no pidfd: poll instead.
        watched = None

    def wait() -> None:
        if watched is not None:
            select.select([watched], [], [])
        while watched is None and _lives(controller_pid):
            time.sleep(POLL_SECONDS)
        if with_group:
            _exit_with_group()
        os._exit(CONTROLLER_GONE)

    threading.Thread(target=wait, name="zerogate-exit", daemon=True).start()


def _exit_with_group() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # This process is in its group too.
    os.killpg(0, signal.SIGTERM)
    os._exit(CONTROLLER_GONE)


def _lives(pid: int) -> bool:
    import psutil  # Slow to import, and not needed where there are pidfds.

    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False
