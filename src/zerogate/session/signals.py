"""Whatever asks this process to end, it ends like Ctrl-C: ranks first, what was measured on disk."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""A scheduler's or a service's way to stop it, and a closed terminal's."""


def interrupt_on_signals() -> Callable[[], None]:
    """Have ``SIGNALS`` raise KeyboardInterrupt from now on; call what is returned to undo it.

    What is ignored (``nohup``) stays ignored, and what somebody else handles is theirs.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    ours = [number for number in SIGNALS if before[number] is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _interrupt)

    def undo() -> None:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)

    return undo


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(f"ended by {signal.Signals(number).name}")
