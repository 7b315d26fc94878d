"""A rank does not outlive the controller that asked for it."""

from __future__ import annotations

import os
import select
import threading

CONTROLLER_GONE = 75


def leave_with(controller_pid: int) -> None:
    """End this process as soon as the controller has ended, however it did.

    Waits on a pidfd in a thread: no polling, and it also ends ranks that hang in a collective.
    """
    try:
        watched = os.pidfd_open(controller_pid)
    except ProcessLookupError:
        os._exit(CONTROLLER_GONE)

    def wait() -> None:
        select.select([watched], [], [])
        os._exit(CONTROLLER_GONE)

    threading.Thread(target=wait, name="zerogate-lifeline", daemon=True).start()
