"""Signals that end this process as Ctrl-C does: ranks end first, and measurements are on disk."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""Signals of a scheduler or a service that stops this process, and of a terminal that closes."""


def interrupt_on_signals() -> Callable[[], None]:
    """Let ``SIGNALS`` raise KeyboardInterrupt from now on; return a function that undoes it.

    A signal that is ignored (``nohup``) stays ignored, and one with another handler keeps it.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    ours = [number for number in SIGNALS if before[number] is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _interrupt)

    def undo() -> None:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)

    return undo


@contextmanager
def finishing() -> Iterator[None]:
    """Ignore signals that would interrupt this session while it ends by itself.

    Afterwards they end the process at once, as by default: everything is on disk.
    """
    ours = [number for number in SIGNALS if signal.getsignal(number) is _interrupt]
    for number in ours:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(f"ended by {signal.Signals(number).name}")
