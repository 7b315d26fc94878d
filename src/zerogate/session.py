"""The session: which launches a cell needs, in which order, measured once, kept on disk.

The only place that knows the whole story. A cell is measured when first asked for; whoever asks
again, as the reference of another cell too, gets the same measurement or the same failure.
"""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from zerogate import verdict as judging
from zerogate.baseline import BaselineFile, CellBaseline, read_baselines
from zerogate.cell import Cell
from zerogate.devices.cards import cards_key, cuda_device_names
from zerogate.devices.host import host_key
from zerogate.launch.errors import LaunchFailedError, RankCrashedError
from zerogate.launch.launcher import Launcher, rank_environment
from zerogate.launch.native import NativeOps
from zerogate.launch.outcome import collect
from zerogate.measurement import Measurement, Value, measure, speedup_over
from zerogate.metric import Metric, metric_named
from zerogate.record import Job, RankRecord, job_path, write_json
from zerogate.strategy import Strategy, read_strategy
from zerogate.verdict import Verdict

DEADLINE_SECONDS = {"cpu": 300.0, "gpu": 3600.0}

SPEEDUP = "speedup_over_ddp"

CPU_BASELINES = "cpu-gloo"

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


@dataclass(frozen=True, slots=True)
class Step:
    """What the session is doing now, for whoever shows progress."""

    text: str
    cell: Cell | None = None
    state: Literal["started", "done", "failed"] = "started"


class Session:
    """Measures and judges cells; holds the launchers, the measurements and the verdicts."""

    def __init__(
        self,
        options: Options,
        *,
        launchers: Mapping[str, Callable[[], Launcher]],
        launch_hook: LaunchHook = lambda job, folder: None,
        notify: Callable[[Step], None] = lambda step: None,
    ) -> None:
        self.options = options
        self.measurements: dict[Cell, Measurement] = {}
        self.failures: dict[Cell, LaunchFailedError] = {}
        self.verdicts: list[Verdict] = []
        self.launches = 0
        self.notify = notify
        self._launchers = launchers
        self._launcher: dict[str, Launcher] = {}
        self._launch_hook = launch_hook
        self._native = NativeOps(options.cache_folder, notify=lambda text: notify(Step(text)))
        self._baselines: dict[Path, BaselineFile] = {}

    # What can run here

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

    def hardware(self, cell: Cell) -> str:
        """The key of the machine that seconds of this cell belong to."""
        return host_key() if cell.tier == "cpu" else cards_key(cell.world_size)

    # Measuring

    def measure(self, cell: Cell) -> Measurement:
        """The cell's measurement. Raises the LaunchFailedError that its launch ended with."""
        if cell in self.failures:
            raise self.failures[cell]
        if cell not in self.measurements:
            try:
                records = [self._launch(cell, index) for index in range(self.options.repeats)]
            except LaunchFailedError as error:
                self.failures[cell] = error
                self.notify(Step(error.summary, cell, "failed"))
                raise
            self.measurements[cell] = measure(cell, records)
            self.notify(Step("measured", cell, "done"))
        return self.measurements[cell]

    def _launch(self, cell: Cell, index: int) -> tuple[RankRecord, ...]:
        missing = self._native.ensure(self.strategy(cell).ops(cell.tier), cell.tier)
        if missing.failed:
            raise RankCrashedError(f"{cell.id}: {missing.failed}", command=self._reproduce(cell))
        self.notify(Step(f"training launch {index + 1}/{self.options.repeats}", cell))
        self.launches += 1
        folder = self.options.report_folder / "launches" / cell.id / str(index)
        shutil.rmtree(folder, ignore_errors=True)
        scratch = folder / "scratch"
        scratch.mkdir(parents=True)
        job = self._job(cell, folder, scratch)
        write_json(job_path(folder), job)
        try:
            records = self._launch_hook(job, folder)
            if records is not None:
                return records
            launcher = self._launcher_for(cell)
            environment = rank_environment(cell.tier, self._native.folder)
            deadline = self.options.deadline_seconds or DEADLINE_SECONDS[cell.tier]
            ended = launcher.launch(job, folder, environment, deadline)
            return collect(job, folder, ended, self._reproduce(cell))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _job(self, cell: Cell, folder: Path, scratch: Path) -> Job:
        root = self.options.root
        data_name = cell.workload.split("_", 1)[-1]
        real = self.options.data_folder
        return Job(
            launch_id=f"{cell.id}-{os.getpid()}-{time.time_ns()}",
            purpose="training",
            cell=cell,
            config_file=str(root / "configs" / f"{cell.strategy}.yaml"),
            requested=self.strategy(cell).requested(cell),
            ops=self.strategy(cell).ops(cell.tier),
            workload_file=str(root / "workloads" / f"{cell.workload}.py"),
            data_folder=str((real or root / "workloads" / "data") / data_name),
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

    def _reproduce(self, cell: Cell) -> str:
        command = (
            f"pytest -m {cell.tier} --workload {cell.workload} --strategy {cell.strategy} "
            f"--world-size {cell.world_size} --launcher {self.options.launcher}"
        )
        if self.options.data_folder:
            command += f" --data-dir {shlex.quote(str(self.options.data_folder))}"
        return command

    # Judging

    def judge(self, cell: Cell, name: str) -> Verdict:
        """Hold one metric of a measured cell to its baseline. Measures the cell if need be."""
        measurement = self.measure(cell)
        metric = metric_named(name, measurement.quality_better)
        return self._keep(self._judge(measurement, metric, self._value(measurement, metric)))

    def judge_same(self, cell: Cell, other: Measurement, name: str, *, limit: float) -> Verdict:
        """Hold a per-step series of a cell to another cell's of this session."""
        return self._keep(
            judging.judge_same(metric_named(name), self.measure(cell), other, limit=limit)
        )

    def judge_learned(self, cell: Cell, name: str) -> Verdict:
        """Hold a quality metric to what the workload says a model that learned reaches."""
        measurement = self.measure(cell)
        return self._keep(
            judging.judge_learned(measurement, metric_named(name, measurement.quality_better))
        )

    def _keep(self, verdict: Verdict) -> Verdict:
        self.verdicts.append(verdict)
        return verdict

    def speedups(self, cell: Cell) -> float:
        """Speedup over the session's DDP at equal micro-batch size."""
        return speedup_over(self.measure(cell.reference), self.measure(cell))

    def _value(self, measurement: Measurement, metric: Metric) -> Value | None:
        if metric.name == SPEEDUP:
            return self.speedups(measurement.cell)
        return measurement.value(metric.name)

    def _judge(self, measurement: Measurement, metric: Metric, value: Any) -> Verdict:
        cell = measurement.cell
        baseline = self.baseline(cell)
        if value is None:
            note = measurement.notes.get(metric.name, "not measured here")
            return Verdict(
                cell=cell, metric=metric.name, status="not_comparable", unit=metric.unit, note=note
            )
        found = judging.judge(
            cell, metric, value, baseline.metrics.get(metric.name) if baseline else None
        )
        if metric.name == SPEEDUP:
            ours = measurement.scalar("epoch_seconds")
            found = replace(found, note=f"DDP {value * ours:.2f} s an epoch, this {ours:.2f} s")
        if baseline is None or found.status == "no_baseline":
            return found
        if why := judging.comparable(measurement, baseline):
            # Other data is the user's choice; any other difference leaves the cell without one.
            chosen = measurement.settings["data_origin"] != baseline.settings.get("data_origin")
            return replace(found, status="not_comparable" if chosen else "no_baseline", note=why)
        if metric.scope == "hardware":
            other = judging.same_speed(measurement, baseline, self.hardware(cell))
            if other is not None:
                return replace(found, status=other.status, note=other.note)
        return found

    # Baselines

    def baseline_path(self, cell: Cell) -> Path:
        """The file that ``cell`` is held to: all CPUs share one folder, each kind of card has its
        own, since only there bytes depend on the hardware.
        """
        folder = self.options.baseline_folder
        if folder is None:
            key = CPU_BASELINES if cell.tier == "cpu" else self.hardware(cell)
            key += "-real-data" if self.options.data_folder else ""
            folder = self.options.root / "baselines" / key
        return folder / f"{cell.workload}.json"

    def baseline_file(self, path: Path) -> BaselineFile:
        """The baselines in ``path``, read once. Raises ConfigError."""
        if path not in self._baselines:
            self._baselines[path] = read_baselines(path)
        return self._baselines[path]

    def baseline(self, cell: Cell) -> CellBaseline | None:
        return self.baseline_file(self.baseline_path(cell)).cells.get(cell.key)

    def close(self) -> None:
        for launcher in self._launcher.values():
            launcher.close()
        self._launcher.clear()
