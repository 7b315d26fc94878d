"""One session after the other at what there is one of: the cache, a report folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import FileLock


@contextmanager
def in_turn(path: Path, notify: Callable[[str], None], what: str) -> Iterator[None]:
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


def hold(report_folder: Path) -> FileLock | None:
    """Keep other sessions out of the folder, until the process ends; None where one is in it."""
    from filelock import FileLock, Timeout

    lock = FileLock(report_folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock
