"""Nothing that the controller asked for outlives it."""

from __future__ import annotations

import os
import select
import signal
import threading

CONTROLLER_GONE = 75


def leave_with(controller_pid: int, *, with_group: bool = False) -> None:
    """End this process as soon as the controller has ended, however it did.

    Waits on a pidfd in a thread: no polling, and it also ends ranks that hang in a collective.
    ``with_group`` ends the process group this one leads as well, by SIGTERM: ninja runs every
    compiler in a group of its own, and ends them only when it is asked.
    """
    try:
        watched = os.pidfd_open(controller_pid)
    except ProcessLookupError:
        os._exit(CONTROLLER_GONE)

    def wait() -> None:
        select.select([watched], [], [])
        if with_group:
            os.killpg(0, signal.SIGTERM)
        os._exit(CONTROLLER_GONE)

    threading.Thread(target=wait, name="zerogate-lifeline", daemon=True).start()
