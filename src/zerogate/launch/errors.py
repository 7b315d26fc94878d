"""What can go wrong with a launch. None of these is a regression: all are ERROR.

LaunchFailed
├── OutOfMemory          a rank ran out of device memory
├── HostOutOfMemory      a rank ran out of the host's, or the kernel killed it for that
├── RankCrashed          a rank raised, was killed, or left without a record
├── ConfigurationWrong   the engine runs something other than what was asked for
├── DeadlineExceeded     the launch, or a phase of it, was still going on at its deadline
├── LauncherFailed       what starts the ranks did not, or was killed
└── DiskFailed           the report folder cannot be written, or is full
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from zerogate.config.text import one_line

if TYPE_CHECKING:
    from zerogate.protocol.cell import Cell
    from zerogate.protocol.record import RankRecord


class LaunchFailedError(Exception):
    """A launch that brought back no measurement.

    ``summary`` is one line; ``detail`` the failing rank's traceback or the log's end; ``record`` what
    the failing rank wrote, if it did.
    """

    kind = "launch failed"

    record: RankRecord | None = None

    def __init__(self, summary: str, *, detail: str = "", log: str = "", command: str = "") -> None:
        self.summary = one_line(summary)
        super().__init__(self.summary)
        self.detail = detail
        self.log = log
        self.command = command

    def report(self) -> str:
        """Everything a person needs: what, where, the log, and how to see it again."""
        lines = [f"{self.kind}: {self.summary}"]
        if self.detail:
            lines += ["", *self.detail.rstrip().splitlines(), ""]
        if self.log:
            lines.append(f"log: {self.log}")
        if self.command:
            lines.append(f"reproduce: {self.command}")
        return "\n".join(lines)


class OutOfMemoryError(LaunchFailedError):
    kind = "out of memory"


class HostOutOfMemoryError(LaunchFailedError):
    kind = "out of host memory"


class RankCrashedError(LaunchFailedError):
    kind = "crash"


class ConfigurationWrongError(LaunchFailedError):
    kind = "wrong configuration"


class DeadlineExceededError(LaunchFailedError):
    kind = "hang"


class LauncherFailedError(LaunchFailedError):
    kind = "launcher failure"


class DiskFailedError(LaunchFailedError):
    kind = "disk"


def ended_how(code: int) -> str:
    """An exit code in words; negative ones are signals."""
    if code >= 0:
        return f"exit code {code}"
    known = {member.value: member.name for member in signal.Signals}
    return f"killed by {known.get(-code, f'signal {-code}')}"


REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""What a disk says that cannot be written."""


@contextmanager
def name_disk_failure(cell: Cell, folder: Path, command: str) -> Iterator[None]:
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
def name_launcher_failure(cell: Cell, command: str) -> Iterator[None]:
    """Have a launcher's own failure say which cell it was, and how to see it again."""
    try:
        yield
    except LauncherFailedError as error:
        if error.command:
            raise  # It does already.
        raise LauncherFailedError(
            f"{cell.id}: {error.summary}", detail=error.detail, log=error.log, command=command
        ) from None
