"""One launch on this machine: its devices are locked and watched while a launcher runs the ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from zerogate.devices.host_memory import oom_kills
from zerogate.devices.nvml import DeviceReadings, DeviceWatch
from zerogate.launch.deadlines import Deadlines
from zerogate.launch.errors import CannotForkError, name_disk_failure, name_launcher_failure
from zerogate.launch.idle import IdleLevels
from zerogate.launch.launcher import Launcher, LaunchResult
from zerogate.launch.locks import lock_devices
from zerogate.launch.process_tree import remove_shared_memory
from zerogate.launch.watchdog import Watchdog
from zerogate.protocol.cell import Cell
from zerogate.protocol.job import Job
from zerogate.session.rank_setup import RankSetup


class RankLaunch:
    """The launchers that a session has started, and how it runs ranks with them."""

    def __init__(
        self,
        setup: RankSetup,
        *,
        launchers: Mapping[str, Callable[[], Launcher]],
        deadlines: Callable[[Cell], Deadlines],
        idle: IdleLevels,
    ) -> None:
        self._setup = setup
        self._launchers = launchers
        self._started: dict[str, Launcher] = {}
        self._deadlines = deadlines
        self._idle = idle
        self._forks_on_cards = True

    def run(
        self, job: Job, folder: Path, command: str
    ) -> tuple[LaunchResult, dict[str, DeviceReadings] | None]:
        """Run the ranks; return how they ended, and NVML's readings of their devices, by UUID.

        There are no readings on the cpu tier. ``command`` reproduces the launch. Raises the
        LaunchFailedError of a launch that no rank could take part in.
        """
        cell = job.cell
        cards = self._setup.assignment(cell).uuids

        def tell(text: str) -> None:
            self._setup.tell(text, cell)

        with name_launcher_failure(cell, command), lock_devices(cards or ["cpu"], tell):
            self._idle.await_idle(cards, tell)
            killed = oom_kills()
            watchdog = Watchdog(job, folder, self._deadlines(cell))
            try:
                with name_disk_failure(cell, folder, command), DeviceWatch(cards) as watch:
                    result = self._start(job, folder, watchdog)
            finally:
                beats = watchdog.heartbeats().values()
                remove_shared_memory({beat.pid for beat in beats if beat})
        self._idle.saw(watch.devices)
        return replace(result, oom_kills=oom_kills() - killed), watch.devices if cards else None

    def _start(self, job: Job, folder: Path, watchdog: Watchdog) -> LaunchResult:
        """Let the launcher start the ranks, or torchrun if ranks that use cards cannot be forked."""
        environment = self._setup.environment(job.cell)
        try:
            return self._launcher_for(job.cell).launch(job, folder, environment, watchdog)
        except CannotForkError as error:
            if job.cell.tier == "cpu":
                raise
            # A refusal holds for the session: the packages that are imported stay the same.
            self._forks_on_cards = not error.refused
            self._setup.tell(f"{error.summary}; torchrun starts the ranks instead", job.cell)
        watchdog.restart()
        return self._launcher("torchrun").launch(job, folder, environment, watchdog)

    def _launcher_for(self, cell: Cell) -> Launcher:
        name = self._setup.options.launcher
        if name == "forkserver" and cell.tier == "gpu" and not self._forks_on_cards:
            name = "torchrun"
        return self._launcher(name)

    def _launcher(self, name: str) -> Launcher:
        if name not in self._started:
            self._started[name] = self._launchers[name]()
        return self._started[name]

    def close(self) -> None:
        """End the launchers and all of their processes."""
        for launcher in self._started.values():
            launcher.close()
        self._started.clear()
