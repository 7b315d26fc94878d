"""Signals that ask a session to end are like Ctrl-C while it runs, and what they were after it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from zerogate.session.signals import SIGNALS, finishing, interrupt_on_signals


@pytest.fixture(autouse=True)
def default_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # Under nohup, SIGHUP is ignored.
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_raises_keyboard_interrupt_until_undone(number: signal.Signals) -> None:
    undo = interrupt_on_signals()
    with pytest.raises(KeyboardInterrupt, match=f"ended by {number.name}"):
        os.kill(os.getpid(), number)
    undo()
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_is_ignored_while_session_finishes(number: signal.Signals) -> None:
    interrupt_on_signals()
    with finishing():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is signal.SIG_DFL


def test_existing_signal_handler_is_kept_while_session_finishes() -> None:
    seen: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    interrupt_on_signals()
    with finishing():
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert seen == [signal.SIGTERM] * 2


def test_ignored_sighup_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    undo = interrupt_on_signals()
    os.kill(os.getpid(), signal.SIGHUP)
    undo()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_existing_signal_handler_is_kept() -> None:
    seen: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    interrupt_on_signals()
    os.kill(os.getpid(), signal.SIGTERM)
    assert seen == [signal.SIGTERM]
