"""Errors of a launch. None of them is a regression.

pytest reports them as ERROR, in the fixture that launches. One exception: a launch that was to confirm
a regression runs inside a test, so its error is that test's FAILED, with the same report.

LaunchFailedError
├── OutOfMemoryError          a rank ran out of device memory
├── HostOutOfMemoryError      a rank ran out of the host's memory, or the kernel killed it for that
├── RankCrashedError          a rank raised, was killed, or left without a record
├── ConfigurationWrongError   the engine runs something other than the strategy and the recipe request
├── DeadlineExceededError     the launch, or a phase of it, exceeded its deadline
├── LauncherFailedError       the process that starts the ranks failed or was killed
│   └── CannotForkError       the fork server cannot start, or its ranks could not use CUDA
└── DiskFailedError           the report folder cannot be written, or is full
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from zerogate.config.text import one_line

if TYPE_CHECKING:
    from zerogate.devices.nvml import DeviceReadings
    from zerogate.protocol.cell import Cell
    from zerogate.protocol.record import RankRecord


class LaunchFailedError(Exception):
    """A launch that produced no measurement.

    ``summary`` is one line. ``detail`` is the failing rank's traceback or the end of the log.
    ``record`` is the failing rank's record, if it wrote one. ``devices`` are NVML's readings during
    the launch.
    """

    kind = "launch failed"

    record: RankRecord | None = None
    devices: Mapping[str, DeviceReadings] | None = None

    def __init__(self, summary: str, *, detail: str = "", log: str = "", command: str = "") -> None:
        self.summary = one_line(summary)
        super().__init__(self.summary)
        self.detail = detail
        self.log = log
        self.command = command

    def report(self) -> str:
        """Return the failure, its detail, the log and the command that reproduces it, as text."""
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


class CannotForkError(LauncherFailedError):
    """A fork server that started no rank. If it ``refused``, it would refuse again."""

    refused = False


class DiskFailedError(LaunchFailedError):
    kind = "disk"


def ended_how(code: int) -> str:
    """Return an exit code in words; a negative one is a signal."""
    if code >= 0:
        return f"exit code {code}"
    known = {member.value: member.name for member in signal.Signals}
    return f"killed by {known.get(-code, f'signal {-code}')}"


REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""The errno values of a disk that cannot be written."""


@contextmanager
def name_disk_failure(cell: Cell, folder: Path, command: str) -> Iterator[None]:
    """Turn an OSError into an error that names the cell and a remedy.

    Raises DiskFailedError if the disk cannot be written, else LauncherFailedError. The launch is
    written to ``folder``, which is named if the OSError names no file.
    """
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename or folder
        if error.errno not in REFUSED:
            raise LauncherFailedError(
                f"{cell.id}: {where}: {error.strerror}; the launch needs it; check that it exists "
                "and can be used",
                command=command,
            ) from None
        raise DiskFailedError(
            f"{cell.id}: {where}: {error.strerror}; launches are written there; free some "
            "space, or choose another --report-dir",
            command=command,
        ) from None


@contextmanager
def name_launcher_failure(cell: Cell, command: str) -> Iterator[None]:
    """Add the cell and the command that reproduces it to the message of a LauncherFailedError."""
    try:
        yield
    except LauncherFailedError as error:
        if error.command:
            raise  # It names them already.
        raise LauncherFailedError(
            f"{cell.id}: {error.summary}", detail=error.detail, log=error.log, command=command
        ) from None
