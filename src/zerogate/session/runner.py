"""One launch of a cell: what the ranks are told, which launcher starts them, what they bring back."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from zerogate.config.options import Options
from zerogate.config.strategy import Strategy, read_strategy
from zerogate.devices.assignment import Assignment, assign_devices, missing_capacity
from zerogate.devices.host_memory import oom_kills
from zerogate.devices.nvml import DeviceWatch
from zerogate.environment.compiled_ops import NativeOps
from zerogate.environment.fingerprint import fingerprint
from zerogate.environment.overlay import Overlay, lay_over
from zerogate.environment.torch_cuda import cuda_lacks
from zerogate.environment.variables import rank_environment
from zerogate.launch.deadlines import Deadlines
from zerogate.launch.errors import (
    OutOfMemoryError,
    RankCrashedError,
    name_disk_failure,
    name_launcher_failure,
)
from zerogate.launch.idle import IdleLevels
from zerogate.launch.launcher import Launcher
from zerogate.launch.locks import lock_devices
from zerogate.launch.process_tree import remove_shared_memory
from zerogate.launch.result import collect_records
from zerogate.launch.watchdog import Watchdog
from zerogate.metrics.device_use import (
    Readings,
    readings_path,
    with_device_use,
    with_strangers,
)
from zerogate.protocol.atomic_write import write_json
from zerogate.protocol.cell import TIERS, Cell, Tier
from zerogate.protocol.record import Job, ProbeRequest, RankRecord, job_path, record_path
from zerogate.session.resume import Kept

DEVICE_MEMORY_BYTES = {"cpu": 24 * 2**30, "gpu": None}
"""The article's card, whose share the cpu tier's scale models get; on the gpu tier the card itself."""

LaunchHook = Callable[[Job, Path], "tuple[RankRecord, ...] | None"]


@dataclass(frozen=True, slots=True)
class Step:
    """What the session is doing now, for whoever shows progress."""

    text: str
    cell: Cell | None = None
    state: Literal["started", "done", "failed"] = "started"


class Runner:
    """Launches cells one at a time, and holds the launchers that it started for that."""

    def __init__(
        self,
        options: Options,
        *,
        launchers: Mapping[str, Callable[[], Launcher]],
        launch_hook: LaunchHook,
        deadlines: Callable[[Cell], Deadlines],
        notify: Callable[[Step], None],
        idle: IdleLevels | None = None,
    ) -> None:
        self.options = options
        self.launches = 0
        self.resumed_launches = 0
        self.overlay: Overlay | None = None
        self._cuda_lacks: str | None = None
        self.notify = notify
        self._launchers = launchers
        self._launcher: dict[str, Launcher] = {}
        self._launch_hook = launch_hook
        self._deadlines = deadlines
        self.idle = idle or IdleLevels()
        self._kept = Kept(options.report_folder, self.fingerprint)
        self._native = self._native_ops()

    def _native_ops(self) -> dict[Tier, NativeOps]:
        cache, over = self.options.cache_folder, self.overlay.folder if self.overlay else None
        return {
            tier: NativeOps(cache, tier, notify=lambda text: self.notify(Step(text)), overlay=over)
            for tier in TIERS
        }

    def lay_over(self) -> None:
        """Have ranks find the packages that were asked for first. Raises ConfigError, without the
        option's name.
        """
        asked, cache = self.options.packages, self.options.cache_folder
        if asked:
            self.overlay = lay_over(asked, cache, lambda text: self.notify(Step(text)))
            self._native = self._native_ops()

    def strategy(self, cell: Cell) -> Strategy:
        return read_strategy(self.options.root / "configs" / f"{cell.strategy}.yaml")

    def unavailable(self, cell: Cell) -> str:
        """Why this machine cannot run ``cell``, with the remedy; empty when it can.

        Builds what must be compiled for it, once.
        """
        strategy, options = self.strategy(cell), self.options
        if cell.tier == "gpu" and (
            why := missing_capacity(
                cell, strategy, self.assignment(cell), share_device=options.share_device,
                root=options.root, folder=options.report_folder,
            )
        ):  # fmt: skip
            return why
        if cell.tier == "gpu":
            if self._cuda_lacks is None:
                self._cuda_lacks = cuda_lacks(self.environment(cell))
            if self._cuda_lacks:
                return self._cuda_lacks
        return self._native[cell.tier].ensure(strategy.ops(cell.tier)).absent

    def assignment(self, cell: Cell) -> Assignment:
        """Where the cell's ranks run on this machine."""
        return assign_devices(cell, share_device=self.options.share_device)

    def _precision(self, cell: Cell) -> str | None:
        has_bf16 = self.assignment(cell).has_bf16
        return self.strategy(cell).forced_precision(cell.tier, has_bf16=has_bf16)

    def requested(self, cell: Cell) -> dict[str, Any]:
        """What ranks of the cell must find applied."""
        return self.strategy(cell).requested(cell, self._precision(cell))

    def launch(self, cell: Cell, index: int, of: int) -> tuple[RankRecord, ...]:
        """Launch ``cell`` for training; the records of its ranks, all ok.

        ``index`` and ``of`` count the cell's launches. Raises the LaunchFailedError it ended with.
        """
        return self._launch(
            cell, f"training launch {index + 1}/{of}", str(index), purpose="training"
        )

    def vary(self, cell: Cell, name: str, **asked: Any) -> tuple[RankRecord, ...]:
        """Launch ``cell`` for training in another way: ``asked`` are fields of its job.

        Raises the LaunchFailedError it ended with.
        """
        return self._launch(cell, name.replace("-", " "), name, purpose="training", **asked)

    def probe(self, cell: Cell, request: ProbeRequest, index: int) -> tuple[RankRecord, ...]:
        """Launch ``cell`` to try batch sizes; the records of its ranks, all ok.

        Raises the LaunchFailedError it ended with; running out of memory is an OutOfMemoryError
        that has the failing rank's record.
        """
        text = f"{request.kind} batch size, launch {index + 1}: {request.sizes[0]}"
        return self._launch(
            cell,
            text + (" and up" if request.stop else ""),
            f"{request.kind}-batch-{index}",
            purpose="probe",
            probe=request,
            device_memory_bytes=(
                self.options.device_memory_bytes or DEVICE_MEMORY_BYTES[cell.tier]
            ),
        )

    def _launch(self, cell: Cell, text: str, name: str, **asked: Any) -> tuple[RankRecord, ...]:
        command = self.options.command(cell, asked["purpose"])
        missing = self._native[cell.tier].ensure(self.strategy(cell).ops(cell.tier))
        if missing.failed:
            raise RankCrashedError(f"{cell.id}: {missing.failed}", command=command)
        self.launches += 1
        folder = self.options.report_folder / "launches" / cell.id / name
        with name_disk_failure(cell, folder, command):
            job = replace(self.job(cell, folder), **asked)
        if kept := self._kept.find(job, folder):
            with suppress(RankCrashedError, OSError):  # Damaged meanwhile: it is launched again.
                records = collect_records(*kept, command)
                self.resumed_launches += 1
                self.notify(Step(f"{text}, kept from the interrupted run", cell))
                return records
        self.notify(Step(text, cell))
        scratch = Path(job.scratch_folder)
        try:
            with name_disk_failure(cell, folder, command):
                shutil.rmtree(folder, ignore_errors=True)
                scratch.mkdir(parents=True)
                write_json(job_path(folder), job)
            return self._launch_hook(job, folder) or self._run(job, folder, command)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _run(self, job: Job, folder: Path, command: str) -> tuple[RankRecord, ...]:
        """Have the launcher start the job's ranks, alone on their devices."""
        cell = job.cell
        cards = self.assignment(cell).uuids
        say = partial(self._say, cell)
        with name_launcher_failure(cell, command), lock_devices(cards or ["cpu"], say):
            self.idle.await_idle(cards, say)
            launcher = self._launcher_for(cell)
            environment = self.environment(cell)
            killed = oom_kills()
            watchdog = Watchdog(job, folder, self._deadlines(cell))
            try:
                with name_disk_failure(cell, folder, command), DeviceWatch(cards) as watched:
                    ended = launcher.launch(job, folder, environment, watchdog)
            finally:
                remove_shared_memory({beat.pid for beat in watchdog.heartbeats().values() if beat})
        self.idle.saw(watched.devices)
        ended = replace(ended, oom_kills=oom_kills() - killed)
        with name_disk_failure(cell, folder, command):
            if watched.devices:  # Also of a launch that failed: it can be replayed.
                found = Readings(origin="recorded", devices=watched.devices)
                write_json(readings_path(folder), found)
            try:
                records = collect_records(job, folder, ended, command)
            except OutOfMemoryError as error:
                if job.purpose == "probe":  # That is an answer.
                    error.record = with_strangers(error.record, watched.devices)
                    if error.record is not None:  # As it is found when the run is resumed.
                        write_json(record_path(folder, error.record.rank), error.record)
                    self._kept.keep(folder, ended)
                raise
            seen = with_device_use(records, watched.devices)
            if watched.devices:
                for record in seen:
                    write_json(record_path(folder, record.rank), record)
            self._kept.keep(folder, ended)
        return seen

    def _say(self, cell: Cell, text: str) -> None:
        self.notify(Step(text, cell))

    def finish(self) -> None:
        """Everything was measured: there is nothing to resume."""
        self._kept.finish()

    def resume(self) -> None:
        """Keep what the interrupted run in the report folder measured. Raises ConfigError."""
        self._kept.resume()

    def fingerprint(self) -> dict[str, str]:
        """Everything that what is measured now depends on."""
        over = f"{self.overlay} ({self.overlay.folder.name})" if self.overlay else "nothing"
        return fingerprint(self.options.root, self.options.settings() | {"--with": over})

    def environment(self, cell: Cell) -> dict[str, str]:
        """The environment of the cell's ranks."""
        overlay = self.overlay.folder if self.overlay else None
        folder = self._native[cell.tier].folder
        return rank_environment(cell.tier, folder, overlay, world_size=cell.world_size)

    def job(self, cell: Cell, folder: Path) -> Job:
        """What ranks of the cell are told that leave what they measure in ``folder``."""
        root = self.options.root
        real = self.options.data_folder
        place = self.assignment(cell)
        return Job(
            run=self._kept.run_id,
            launch_id=f"{cell.id}-{os.getpid()}-{time.time_ns()}",
            purpose="training",
            cell=cell,
            config_file=str(root / "configs" / f"{cell.strategy}.yaml"),
            requested=self.requested(cell),
            precision=self._precision(cell),
            ops=self.strategy(cell).ops(cell.tier),
            workload_file=str(root / "workloads" / f"{cell.workload}.py"),
            data_folder=str((real or root / "workloads" / "data") / cell.data_name),
            data_origin="real" if real else "generated",
            scratch_folder=str(folder / "scratch"),
            record_folder=str(folder),
            root_folder=str(root),
            controller_pid=os.getpid(),
            shared_devices=len(place.devices) if place.shared else 0,
            # Who shares keeps to its share in training too.
            device_memory_bytes=self.options.device_memory_bytes if place.shared else None,
        )

    def _launcher_for(self, cell: Cell) -> Launcher:
        name = self.options.launcher
        if cell.tier == "gpu" and name == "forkserver":
            # Forking ranks beside CUDA has not been tried on a card; torchrun is known to work.
            self.notify(Step("gpu tier: ranks are started by torchrun, not the fork server", cell))
            name = "torchrun"
        if name not in self._launcher:
            self._launcher[name] = self._launchers[name]()
        return self._launcher[name]

    def close(self) -> None:
        for launcher in self._launcher.values():
            launcher.close()
        self._launcher.clear()
