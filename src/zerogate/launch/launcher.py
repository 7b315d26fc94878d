"""The launcher interface: start a job's ranks, wait, and leave no process behind."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from zerogate.launch.watchdog import Watchdog
from zerogate.protocol.record import Job

PEERS_GRACE_SECONDS = 3.0
"""How long ranks may take to leave by themselves once one of them has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchResult:
    """How a launch ended. ``exit_codes`` by process name; negative ones are signals.

    A process that was ended by the launcher because of another's failure is not in it. ``overdue``
    says what was late where that ended it, and ``stacks`` where every rank then stood; ``oom_kills``
    counts processes that the kernel killed meanwhile because the host had no memory left.
    """

    exit_codes: dict[str, int]
    seconds: float
    log: Path
    overdue: str = ""
    stacks: str = ""
    oom_kills: int = 0

    @property
    def failed(self) -> bool:
        return bool(self.overdue) or any(code != 0 for code in self.exit_codes.values())


class Launcher(Protocol):
    """Starts the ranks of one job at a time. ``launch`` returns once no process of it is left."""

    name: str

    def launch(
        self, job: Job, folder: Path, environment: dict[str, str], watchdog: Watchdog
    ) -> LaunchResult: ...

    def close(self) -> None: ...


def free_port() -> int:
    """A loopback TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
