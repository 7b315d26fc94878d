"""Heartbeats: a rank writes one at every phase and step, and the controller reads it while it waits.

Standard library only, like ``record``. Times are of the monotonic clock, which all processes of a
machine share.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

WIDTH = 256
"""Bytes of the file. Overwriting it in place needs no space, so a full disk does not matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Progress of a rank: ``step`` counts the phase's optimizer steps, or the batch sizes tried."""

    pid: int
    phase: str
    step: int
    at: float

    def age_seconds(self, now: float) -> float:
        return now - self.at


class Pulse:
    """A rank's heartbeat file, open for its whole life."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._file = os.open(heartbeat_path(folder, rank), os.O_CREAT | os.O_WRONLY, 0o644)

    def beat(self, phase: str, step: int) -> None:
        found = Heartbeat(pid=os.getpid(), phase=phase, step=step, at=time.monotonic())
        # A full disk does not end training here: writing the record will report it.
        with contextlib.suppress(OSError):
            os.pwrite(self._file, json.dumps(asdict(found)).ljust(WIDTH).encode(), 0)


def heartbeat_path(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}.heartbeat"


def stacks_path(folder: Path, rank: int) -> Path:
    """Return the file that a rank writes its stacks to when the controller requests them."""
    return folder / f"rank{rank}.stacks"
