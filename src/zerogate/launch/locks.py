"""One launch at a time on a device: two that measure at once would measure each other."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from zerogate.launch.errors import LauncherFailedError

if TYPE_CHECKING:
    from filelock import FileLock

POLL_SECONDS = 0.2
SHARED_FOLDER, SHARED_FILE = 0o777, 0o666
"""Modes: the lock is between users too, as devices are."""


@contextmanager
def lock_devices(devices: Sequence[str], notify: Callable[[str], None]) -> Iterator[None]:
    """Hold the locks of ``devices``, waiting for whoever has them, and telling ``notify`` who.

    Locks end with the process that holds them, however it ends. Raises LauncherFailedError where
    they cannot be had at all.
    """
    with ExitStack() as held:
        # In order: two who want the same two wait for the same one first.
        for device in sorted(set(devices)):
            held.enter_context(_lock(_folder() / f"{device}.lock", device, notify))
        yield


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / "zerogate-locks"
    with suppress(OSError):
        folder.mkdir(exist_ok=True)
        folder.chmod(SHARED_FOLDER)  # Past the umask; fails where it is another user's, who did it.
    return folder


@contextmanager
def _lock(path: Path, device: str, notify: Callable[[str], None]) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(path, mode=SHARED_FILE)
    # Who waits holds the turn: a session that launches again and again lets the others in between.
    turn = FileLock(path.with_suffix(".turn"), mode=SHARED_FILE)
    try:
        try:
            turn.acquire(timeout=0)
            lock.acquire(timeout=0)
        except Timeout:
            notify(f"waiting for {_holder(path)}, which measures on {device}")
            turn.acquire(poll_interval=POLL_SECONDS)
            lock.acquire(poll_interval=POLL_SECONDS)
        finally:
            turn.release(force=True)
    except OSError as error:
        raise LauncherFailedError(
            f"{path}: cannot be locked ({error.strerror}); it keeps two sessions from measuring on "
            f"{device} at once; remove it, or set TMPDIR to a folder that can be written"
        ) from None
    try:
        with suppress(OSError):
            _note(path).unlink(missing_ok=True)  # Another user's cannot be written over.
            _note(path).write_text(
                json.dumps({"pid": os.getpid(), "in": str(Path.cwd()), "since": time.time()})
            )
        yield
    finally:
        with suppress(OSError):
            _note(path).unlink(missing_ok=True)
        lock.release()


def _note(path: Path) -> Path:
    return path.with_suffix(".holder")


def _holder(path: Path) -> str:
    """Who holds the lock, as far as is known."""
    try:
        held = json.loads(_note(path).read_text())
        return f"process {int(held['pid'])} in {held['in']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another session"


@contextmanager
def hold_lock(path: Path, notify: Callable[[str], None], what: str) -> Iterator[None]:
    """Hold the lock at ``path``; who has to wait for it is told for ``what``."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        notify(f"waiting for another session that is {what}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def lock_folder(report_folder: Path) -> FileLock | None:
    """Keep other sessions out of the folder, until the process ends; None where one is in it."""
    from filelock import FileLock, Timeout

    lock = FileLock(report_folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock
