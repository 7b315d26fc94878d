"""A watchdog that finds a launch, or a rank in one of its phases, past its deadline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from zerogate.config.validation import from_json
from zerogate.launch.deadlines import PROBE_SECONDS, Deadlines
from zerogate.protocol.heartbeat import Heartbeat, heartbeat_path
from zerogate.protocol.job import Job
from zerogate.protocol.record import record_path

LOOK_SECONDS = 1.0
"""Interval between two readings of the ranks' heartbeats while a launcher waits."""


class Watchdog:
    """The deadlines of one launch, which count from the construction or the last ``restart``."""

    def __init__(self, job: Job, folder: Path, deadlines: Deadlines) -> None:
        self.folder = folder
        self.ranks: Sequence[int] = range(job.cell.world_size)
        self.started = time.monotonic()
        probes = job.purpose == "probe"
        self._launch = min(deadlines.launch, PROBE_SECONDS) if probes else deadlines.launch
        self._phases = {} if probes else deadlines.phases

    def restart(self) -> None:
        """Count from now: the launch begins anew."""
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the launch began."""
        return time.monotonic() - self.started

    @property
    def next_look(self) -> float:
        """Seconds to wait before the next call of ``overdue``."""
        return max(0.01, min(LOOK_SECONDS, self._launch - self.seconds))

    def heartbeats(self) -> dict[int, Heartbeat | None]:
        return {rank: read_heartbeat(self.folder, rank) for rank in self.ranks}

    def overdue(self) -> str:
        """Return what is past its deadline, and the deadline; empty while nothing is."""
        now = time.monotonic()
        if now - self.started >= self._launch:
            return f"the launch's limit is {self._launch:.0f} s"
        late = []
        for rank, beat in self.heartbeats().items():
            if record_path(self.folder, rank).exists():
                continue
            phase = beat.phase if beat else "set-up"
            age = now - (beat.at if beat else self.started)
            if age >= self._phases.get(phase, self._launch):
                late.append((age, rank, phase))
        if not late:
            return ""
        age, rank, phase = max(late)
        what = "a step" if phase == "train" else phase
        return f"rank {rank} in {what} for {age:.0f} s; the limit is {self._phases[phase]:.0f} s"


def read_heartbeat(folder: Path, rank: int) -> Heartbeat | None:
    """Return the rank's last heartbeat; None if there is none or it cannot be read."""
    try:
        return from_json(Heartbeat, heartbeat_path(folder, rank).read_bytes())
    except (OSError, ValueError):
        return None
