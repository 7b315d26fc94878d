"""What the system refuses ends one launch, and not the session."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zerogate.cell import Cell
from zerogate.launch.errors import DiskFailedError, LauncherFailedError

REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""What a disk says that cannot be written."""


@contextmanager
def disk_named(cell: Cell, folder: Path, command: str) -> Iterator[None]:
    """Have an OSError say which cell it was, and what to do: launches are written to ``folder``."""
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename or folder
        if error.errno not in REFUSED:
            raise LauncherFailedError(
                f"{cell.id}: {where}: {error.strerror}; it was needed for the launch",
                command=command,
            ) from None
        raise DiskFailedError(
            f"{cell.id}: {where}: {error.strerror}; launches are written there; free some space, or "
            "choose another --report-dir",
            command=command,
        ) from None


@contextmanager
def named(cell: Cell, command: str) -> Iterator[None]:
    """Have a launcher's own failure say which cell it was, and how to see it again."""
    try:
        yield
    except LauncherFailedError as error:
        if error.command:
            raise  # It does already.
        raise LauncherFailedError(
            f"{cell.id}: {error.summary}", detail=error.detail, log=error.log, command=command
        ) from None
