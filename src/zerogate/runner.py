"""One launch of a cell: what the ranks are told, which launcher starts them, what they bring back."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from zerogate.cell import Cell
from zerogate.devices.cards import cuda_device_names
from zerogate.launch.errors import RankCrashedError
from zerogate.launch.launcher import Launcher, rank_environment
from zerogate.launch.native import NativeOps
from zerogate.launch.outcome import collect
from zerogate.record import Job, ProbeRequest, RankRecord, job_path, write_json
from zerogate.strategy import Strategy, read_strategy

DEVICE_MEMORY_BYTES = {"cpu": 24 * 2**30, "gpu": None}
"""The article's card, whose share the cpu tier's scale models get; on the gpu tier the card itself."""

DEADLINE_SECONDS = {"cpu": 300.0, "gpu": 3600.0}

LaunchHook = Callable[[Job, Path], "tuple[RankRecord, ...] | None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked of a session. Folders are absolute."""

    root: Path
    baseline_folder: Path | None
    report_folder: Path
    cache_folder: Path
    launcher: str
    repeats: int
    data_folder: Path | None
    deadline_seconds: float | None
    device_memory_bytes: int | None = None


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
        notify: Callable[[Step], None],
    ) -> None:
        self.options = options
        self.launches = 0
        self.notify = notify
        self._launchers = launchers
        self._launcher: dict[str, Launcher] = {}
        self._launch_hook = launch_hook
        self._native = NativeOps(options.cache_folder, notify=lambda text: notify(Step(text)))

    def strategy(self, cell: Cell) -> Strategy:
        return read_strategy(self.options.root / "configs" / f"{cell.strategy}.yaml")

    def unavailable(self, cell: Cell) -> str:
        """Why this machine cannot run ``cell``, with the remedy; empty when it can.

        Builds what must be compiled for it, once.
        """
        if cell.tier == "gpu":
            found = len(cuda_device_names())
            if found < cell.world_size:
                plural = "s" if cell.world_size != 1 else ""
                return f"needs {cell.world_size} CUDA device{plural}, found {found}"
        return self._native.ensure(self.strategy(cell).ops(cell.tier), cell.tier).absent

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
        missing = self._native.ensure(self.strategy(cell).ops(cell.tier), cell.tier)
        if missing.failed:
            raise RankCrashedError(
                f"{cell.id}: {missing.failed}", command=self._reproduce(cell, asked["purpose"])
            )
        self.notify(Step(text, cell))
        self.launches += 1
        folder = self.options.report_folder / "launches" / cell.id / name
        shutil.rmtree(folder, ignore_errors=True)
        scratch = folder / "scratch"
        scratch.mkdir(parents=True)
        job = replace(self._job(cell, folder, scratch), **asked)
        write_json(job_path(folder), job)
        try:
            records = self._launch_hook(job, folder)
            if records is not None:
                return records
            launcher = self._launcher_for(cell)
            environment = rank_environment(cell.tier, self._native.folder)
            deadline = self.options.deadline_seconds or DEADLINE_SECONDS[cell.tier]
            ended = launcher.launch(job, folder, environment, deadline)
            return collect(job, folder, ended, self._reproduce(cell, job.purpose))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _job(self, cell: Cell, folder: Path, scratch: Path) -> Job:
        root = self.options.root
        real = self.options.data_folder
        return Job(
            launch_id=f"{cell.id}-{os.getpid()}-{time.time_ns()}",
            purpose="training",
            cell=cell,
            config_file=str(root / "configs" / f"{cell.strategy}.yaml"),
            requested=self.strategy(cell).requested(cell),
            ops=self.strategy(cell).ops(cell.tier),
            workload_file=str(root / "workloads" / f"{cell.workload}.py"),
            data_folder=str((real or root / "workloads" / "data") / cell.data_name),
            data_origin="real" if real else "generated",
            scratch_folder=str(scratch),
            record_folder=str(folder),
            root_folder=str(root),
            controller_pid=os.getpid(),
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

    def _reproduce(self, cell: Cell, purpose: str = "training") -> str:
        marks = cell.tier if purpose == "training" else f'"{cell.tier} and batch_size"'
        command = (
            f"pytest -m {marks} --workload {cell.workload} --strategy {cell.strategy} "
            f"--world-size {cell.world_size} --launcher {self.options.launcher}"
        )
        if self.options.device_memory_bytes is not None:
            command += f" --device-memory {self.options.device_memory_bytes}"
        if self.options.data_folder:
            command += f" --data-dir={shlex.quote(str(self.options.data_folder))}"
        return command

    def close(self) -> None:
        for launcher in self._launcher.values():
            launcher.close()
        self._launcher.clear()
