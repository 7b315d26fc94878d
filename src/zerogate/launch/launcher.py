"""The launcher interface: start a job's ranks, wait, and leave no process behind."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from zerogate.launch.watchdog import Watchdog
from zerogate.protocol.job import Job

COMMAND_LAUNCHERS = ("torchrun", "accelerate")
"""Launchers that are one command for all ranks (``launch.command``)."""

LAUNCHERS = ("forkserver", *COMMAND_LAUNCHERS)
"""All launchers, the default first. ``session.factory`` makes them."""

PEERS_GRACE_SECONDS = 3.0
"""Seconds that ranks have to end by themselves after one of them has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchResult:
    """The end of a launch. ``exit_codes`` are by process name; a negative one is a signal.

    Processes that the launcher ended because another one failed are not in ``exit_codes``. If a
    deadline ended the launch, ``overdue`` says which, and ``stacks`` has the stacks of every rank.
    ``oom_kills`` counts the processes that the kernel killed meanwhile for lack of host memory.
    ``alone`` is false if something else of this session may have run meanwhile: its seconds are then
    not to be trusted.
    """

    exit_codes: dict[str, int]
    seconds: float
    log: Path
    overdue: str = ""
    stacks: str = ""
    oom_kills: int = 0
    alone: bool = True

    @property
    def failed(self) -> bool:
        return bool(self.overdue) or any(code != 0 for code in self.exit_codes.values())


class Launcher(Protocol):
    """A way to start the ranks of one job at a time.

    Each rank runs ``python -m zerogate.worker.main FOLDER`` (or forks it) with ``environment`` and with
    torchrun's variables: RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT.
    ``launch`` returns once no process of the job is left.
    """

    name: str

    def launch(
        self, job: Job, folder: Path, environment: dict[str, str], watchdog: Watchdog
    ) -> LaunchResult: ...

    def close(self) -> None: ...


def free_port() -> int:
    """Return a loopback TCP port on which nobody listens at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
