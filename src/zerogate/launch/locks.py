"""Locks that allow one launch at a time on a device: two at once would measure each other."""

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
"""File modes: users share the locks, as they share the devices."""


@contextmanager
def lock_devices(devices: Sequence[str], progress: Callable[[str], None]) -> Iterator[None]:
    """Hold the locks of ``devices``. While another process has one, wait, and tell ``progress``.

    A lock ends with the process that holds it, however that ends. Raises LauncherFailedError if a
    lock file cannot be used.
    """
    with ExitStack() as held:
        # In order: two sessions that want the same two devices wait for the same one first.
        for device in sorted(set(devices)):
            held.enter_context(_lock(_folder() / f"{device}.lock", device, progress))
        yield


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / "zerogate-locks"
    with suppress(OSError):
        folder.mkdir(exist_ok=True)
        folder.chmod(SHARED_FOLDER)  # Despite the umask; another user's folder is open already.
    return folder


@contextmanager
def _lock(path: Path, device: str, progress: Callable[[str], None]) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(path, mode=SHARED_FILE)
    # A waiting session holds this second lock, so a session that launches repeatedly lets it in.
    turn = FileLock(path.with_suffix(".turn"), mode=SHARED_FILE)
    try:
        try:
            turn.acquire(timeout=0)
            lock.acquire(timeout=0)
        except Timeout:
            progress(f"waiting for {_holder(path)}, which measures on {device}")
            turn.acquire(poll_interval=POLL_SECONDS)
            lock.acquire(poll_interval=POLL_SECONDS)
        finally:
            turn.release(force=True)
    except OSError as error:
        raise LauncherFailedError(
            f"{path}: cannot be locked ({error.strerror}); the lock keeps two sessions from "
            f"measuring on {device} at once; remove the file, or set TMPDIR to a writable folder"
        ) from None
    try:
        with suppress(OSError):
            _note(path).unlink(missing_ok=True)  # Another user's cannot be overwritten.
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
    """Return the holder of the lock in words, as far as it is known."""
    try:
        held = json.loads(_note(path).read_text())
        return f"process {int(held['pid'])} in {held['in']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another session"


@contextmanager
def hold_lock(path: Path, progress: Callable[[str], None], what: str) -> Iterator[None]:
    """Hold the lock at ``path``. If another session has it, tell ``progress`` what it is doing."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(f"waiting for another session that is {what}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def lock_folder(report_folder: Path) -> FileLock | None:
    """Return a lock on the folder, held until this process ends; None if another session has it."""
    from filelock import FileLock, Timeout

    lock = FileLock(report_folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock
