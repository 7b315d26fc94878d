"""One session after the other at what the cache holds for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


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
