"""What can happen to a launch, and what the session must call it.

A happening is planted in rank 1 (the toy workload does it), done from outside by a saboteur that
waits for rank 1 to get somewhere, or done to the records once the ranks have gone.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from zerogate.launch.errors import (
    DeadlineExceededError,
    HostOutOfMemoryError,
    LauncherFailedError,
    LaunchFailedError,
    OutOfMemoryError,
    RankCrashedError,
)
from zerogate.launch.launcher import Launcher, LaunchResult
from zerogate.launch.watchdog import Watchdog, read_heartbeat
from zerogate.protocol.heartbeat import Heartbeat
from zerogate.protocol.job import Job
from zerogate.protocol.record import record_path

LOOK_SECONDS = 0.001
PHASES = ("set-up", "train", "eval", "trace")


@dataclass(frozen=True, kw_only=True)
class Happening:
    """``fault`` is planted in the workload; ``act`` is done by the saboteur when rank 1 has got to
    ``moment``; ``damage`` to rank 1's record. ``error`` is what the launch must end with, with
    ``words`` in its report; None: it is measured all the same.
    """

    name: str
    error: type[LaunchFailedError] | None
    words: str = ""
    fault: str = ""
    act: Callable[[int], None] | None = None
    damage: Callable[[Path], None] | None = None


@dataclass(frozen=True)
class Moment:
    """When rank 1 has done ``step`` of ``phase``, or is further."""

    phase: str
    step: int

    def reached(self, beat: Heartbeat | None) -> bool:
        if beat is None:
            return False
        here = (PHASES.index(beat.phase), beat.step)
        return here >= (PHASES.index(self.phase), self.step)


class Sabotaged:
    """A launcher whose launches something happens to."""

    def __init__(self, launcher: Launcher, happening: Happening, moment: Moment) -> None:
        self.name = launcher.name
        self.acted = False
        self._launcher = launcher
        self._happening = happening
        self._moment = moment
        self._over = threading.Event()

    def launch(
        self, job: Job, folder: Path, environment: dict[str, str], watch: Watchdog
    ) -> LaunchResult:
        saboteur = threading.Thread(target=self._wait_and_act, args=[folder], daemon=True)
        if self._happening.act is not None:
            saboteur.start()
        try:
            ended = self._launcher.launch(job, folder, environment, watch)
        finally:
            self._over.set()
            if saboteur.is_alive():
                saboteur.join()
        if self._happening.damage is not None:
            self._happening.damage(record_path(folder, 1))
        return ended

    def close(self) -> None:
        self._launcher.close()

    def _wait_and_act(self, folder: Path) -> None:
        assert self._happening.act is not None
        while not self._over.wait(LOOK_SECONDS):
            beat = read_heartbeat(folder, 1)
            if self._moment.reached(beat):
                assert beat is not None
                with suppress(ProcessLookupError, psutil.NoSuchProcess):
                    self._happening.act(beat.pid)
                    self.acted = True
                return


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def kill_launcher(pid: int) -> None:
    """The process that started the rank: the fork server, torchrun, or accelerate."""
    psutil.Process(pid).parent().kill()


def truncate(path: Path) -> None:
    path.write_text(path.read_text()[: path.stat().st_size // 2])


def foreign(path: Path) -> None:
    record: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"launch_id": "of yesterday"}))


def remove(path: Path) -> None:
    path.unlink()


LEFT = "rank 1 left without a record"

HAPPENINGS = {
    one.name: one
    for one in (
        Happening(name="rank_killed", error=RankCrashedError, words=LEFT, fault="slow", act=kill),
        Happening(
            name="rank_stopped",
            error=DeadlineExceededError,
            words=", stopped: ",
            fault="slow",
            act=stop,
        ),
        Happening(
            name="launcher_killed", error=LauncherFailedError, fault="slow", act=kill_launcher
        ),
        Happening(
            name="collective_skipped",
            error=DeadlineExceededError,
            words="_meet",
            fault="skip",
        ),
        Happening(
            name="hang_with_child",
            error=DeadlineExceededError,
            words="_start_processes",
            fault="hang",
        ),
        Happening(
            name="exception",
            error=RankCrashedError,
            words="rank 1 in train: ValueError: a fault in the workload",
            fault="raise",
        ),
        Happening(name="device_oom", error=OutOfMemoryError, words="rank 1 in train", fault="oom"),
        Happening(
            name="host_oom", error=HostOutOfMemoryError, words="rank 1 in train", fault="host_oom"
        ),
        Happening(name="exit_0_without_record", error=RankCrashedError, words=LEFT, fault="leave"),
        Happening(
            name="truncated_record",
            error=RankCrashedError,
            words="expected a rank record",
            damage=truncate,
        ),
        Happening(
            name="record_of_another_run",
            error=RankCrashedError,
            words="a record of another launch (of yesterday)",
            damage=foreign,
        ),
        Happening(name="record_removed", error=RankCrashedError, words=LEFT, damage=remove),
        Happening(name="slow_rank", error=None, fault="slow"),
        Happening(name="log_of_100_MB", error=None, fault="flood"),
        Happening(name="children_left", error=None, fault="children"),
    )
}
