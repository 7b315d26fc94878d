"""Runner of one launch of a cell: it writes the job, starts the ranks and reads their records."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from zerogate.devices.attribution import Source
from zerogate.devices.nvml import (
    DeviceReadings,
    LaunchReadings,
    read_launch_readings,
    readings_path,
)
from zerogate.launch.deadlines import Deadlines
from zerogate.launch.errors import (
    LaunchFailedError,
    OutOfMemoryError,
    RankCrashedError,
    name_disk_failure,
)
from zerogate.launch.idle import IdleLevels
from zerogate.launch.launcher import Launcher, LaunchResult
from zerogate.launch.result import collect_records
from zerogate.metrics.device_use import LaunchRecords, host_source
from zerogate.protocol.atomic_write import write_json
from zerogate.protocol.cell import Cell
from zerogate.protocol.job import Job, ProbeRequest, job_path
from zerogate.protocol.record import SHARED_DEVICE, RankRecord
from zerogate.session.rank_launch import RankLaunch
from zerogate.session.rank_setup import RankSetup
from zerogate.session.resume import KeptLaunches

VARIANT_STEPS = 6
"""Steps of a variant: the first two train at learning rate 0; the others show the optimizer's work."""

LaunchHook = Callable[[Job, Path], "tuple[RankRecord, ...] | None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChanges:
    """Changes of a training launch to its cell's recipe; the fields are those of ``Job``."""

    steps: int = VARIANT_STEPS
    micro_batch_size: int | None = None
    gradient_accumulation_steps: int | None = None
    preload: tuple[str, ...] = ()


class Runner:
    """Runner that launches cells one at a time, unless an interrupted run kept the launch.

    It is not ``alone`` if runners of other processes launch meanwhile. ``helpers`` are pids of
    processes that launched for this session before; their launches in the report folder count.
    """

    def __init__(
        self,
        setup: RankSetup,
        *,
        launchers: Mapping[str, Callable[[], Launcher]],
        launch_hook: LaunchHook,
        deadlines: Callable[[Cell], Deadlines],
        idle: IdleLevels | None = None,
        sources: dict[str, Source] | None = None,
    ) -> None:
        self.setup = setup
        self.options = setup.options
        self.launches = 0
        self.resumed_launches = 0
        self.helped_launches = 0
        self.alone = True
        self.helpers: set[int] = set()
        self.idle = idle or IdleLevels()
        self.sources: dict[str, Source] = {} if sources is None else sources
        """This host's source of peaks of devices, by topology; the first launch of each chooses it."""
        self._rank_launch = RankLaunch(
            setup, launchers=launchers, deadlines=deadlines, idle=self.idle
        )
        self._launch_hook = launch_hook
        self._kept = KeptLaunches(setup.options.report_folder, setup.fingerprint)

    def job(self, cell: Cell, folder: Path) -> Job:
        """Return the job of a training launch; its ranks write their records to ``folder``.

        Raises ConfigError.
        """
        project, real = self.options.project, self.options.data_folder
        place = self.setup.assignment(cell)
        return Job(
            run=self._kept.run_id,
            launch_id=f"{cell.id}-{os.getpid()}-{time.time_ns()}",
            purpose="training",
            cell=cell,
            config_file=str(project.strategy_file(cell.strategy)),
            requested=self.setup.requested(cell),
            precision=self.setup.precision(cell),
            ops=self.setup.strategy(cell).ops,
            workload_file=str(project.workload_file(cell.workload)),
            data_folder=str((real or project.generated_data) / cell.data_name),
            data_origin="real" if real else "generated",
            scratch_folder=str(folder / "scratch"),
            record_folder=str(folder),
            root_folder=str(project.root),
            controller_pid=os.getpid(),
            shared_devices=len(place.devices) if place.shared else 0,
            # Ranks that share a device keep to their share of it in training too.
            device_memory_bytes=self.setup.device_memory_bytes(cell) if place.shared else None,
            # Scale models are drawn in milliseconds, and every byte of theirs is counted.
            weights_folder=str(self.options.weights_folder) if cell.tier == "gpu" else None,
        )

    def launch(self, cell: Cell, index: int, of: int) -> LaunchRecords:
        """Launch ``cell`` for training and return its records, which are all ok.

        It is launch ``index`` (from 0) out of ``of``. Raises the LaunchFailedError that it ended with.
        """
        return self._launch(cell, str(index), f"training launch {index + 1}/{of}", lambda job: job)

    def launch_variant(self, cell: Cell, name: str, changes: JobChanges) -> LaunchRecords:
        """Launch ``cell`` for training with ``changes`` to its recipe, in the folder ``name``.

        Raises the LaunchFailedError that the launch ended with.
        """

        def changed(job: Job) -> Job:
            return replace(
                job,
                steps=changes.steps,
                micro_batch_size=changes.micro_batch_size,
                gradient_accumulation_steps=changes.gradient_accumulation_steps,
                preload=changes.preload,
            )

        return self._launch(cell, name, name.replace("-", " "), changed)

    def probe(self, cell: Cell, request: ProbeRequest, index: int) -> LaunchRecords:
        """Launch ``cell`` to try batch sizes and return its records, which are all ok.

        Raises the LaunchFailedError that the launch ended with. If memory ran out, it is an
        OutOfMemoryError with the failing rank's record and the readings of the devices.
        """

        def probing(job: Job) -> Job:
            memory = self.setup.device_memory_bytes(cell)
            return replace(job, purpose="probe", probe=request, device_memory_bytes=memory)

        text = f"{request.kind} batch size, launch {index + 1}: {request.sizes[0]}"
        text += " and up" if request.stop else ""
        return self._launch(cell, f"{request.kind}-batch-{index}", text, probing, probe=True)

    def _launch(
        self,
        cell: Cell,
        name: str,
        text: str,
        change: Callable[[Job], Job],
        *,
        probe: bool = False,
    ) -> LaunchRecords:
        """Launch the cell's changed job in the folder ``name``, or return what this run kept of it."""
        command = self.options.command(cell, batch_size=probe)
        if failed := self.setup.compile(cell).failed:
            raise RankCrashedError(f"{cell.id}: {failed}", command=command)
        self.launches += 1
        folder = self.options.report_folder / "launches" / cell.id / name
        with name_disk_failure(cell, folder, command):
            job = change(self.job(cell, folder))
        if kept := self._kept.find(job, folder):
            with suppress(RankCrashedError, OSError, ValueError):  # Damaged: it is launched again.
                return self._records_of_kept(kept, text, command)
        # A probe that tries one size after another is not timed; everything else is.
        if job.probe is None or job.probe.stop is None:
            self.setup.finish_compiling()
        self.setup.tell(text, cell)
        scratch = Path(job.scratch_folder)
        try:
            with name_disk_failure(cell, folder, command):
                shutil.rmtree(folder, ignore_errors=True)
                scratch.mkdir(parents=True)
                write_json(job_path(folder), job)
            alone = self._is_alone()
            if records := self._launch_hook(job, folder):
                readings = read_launch_readings(folder)
                devices = readings.devices if readings else None
                found = LaunchRecords(ranks=records, devices=devices, alone=alone)
                return self._with_source(found, readings.source if readings else None)
            return self._run(job, folder, command)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _records_of_kept(
        self, kept: tuple[Job, Path, LaunchResult], text: str, command: str
    ) -> LaunchRecords:
        job, folder, result = kept
        readings = read_launch_readings(folder)
        try:
            found = _collect(job, folder, result, readings.devices if readings else None, command)
        except OutOfMemoryError:  # Of a probe: that is a result too.
            self._count_kept(job, text)
            raise
        self._count_kept(job, text)
        return self._with_source(found, readings.source if readings else None)

    def _count_kept(self, job: Job, text: str) -> None:
        if job.controller_pid in self.helpers:  # That it was launched was told then.
            self.helped_launches += 1
        else:
            self.resumed_launches += 1
            self.setup.tell(f"{text}, kept from the interrupted run", job.cell)

    def _run(self, job: Job, folder: Path, command: str) -> LaunchRecords:
        """Launch the ranks and return their records; keep the launch for a resumed run."""
        alone = self._is_alone()
        result, devices = self._rank_launch.run(job, folder, command)
        result = replace(result, alone=alone)
        with name_disk_failure(job.cell, folder, command):
            topology = SHARED_DEVICE if job.shared_devices else ""
            try:
                found = self._with_source(_collect(job, folder, result, devices, command))
            except LaunchFailedError as error:
                # Kept too, so that it can be replayed.
                _write_readings(folder, devices, self.sources.get(topology))
                if isinstance(error, OutOfMemoryError) and job.purpose == "probe":
                    self._kept.keep(folder, result)  # A result, which counts if the run is resumed.
                raise
            _write_readings(folder, devices, found.source)
            self._kept.keep(folder, result)
        return found

    def _with_source(self, found: LaunchRecords, kept: Source | None = None) -> LaunchRecords:
        """Return the launch with this host's source of peaks; ``kept`` is that of a resumed launch.

        Nobody changes the source later: a peak by another one is another quantity.
        """
        topology = found.ranks[0].topology
        if topology not in self.sources and (chosen := kept or host_source(found)):
            self.sources[topology] = chosen
        return replace(found, source=self.sources.get(topology))

    def resume(self) -> None:
        """Resume the interrupted run in the report folder. Raises ConfigError."""
        self._kept.resume()

    def share(self) -> None:
        """Let other processes launch for this run; their launches are found as if they were its own."""
        self._kept.share()

    def join(self) -> None:
        """Launch for the run that another process shares, beside others. Raises OSError, ValueError."""
        self._kept.join()
        self.alone = False

    def _is_alone(self) -> bool:
        """Return whether a launch that begins now has the machine for itself."""
        return self.alone and not self.setup.is_compiling()

    def finish(self) -> None:
        """Note that everything was measured: there is nothing to resume."""
        self._kept.finish()

    def close(self) -> None:
        """End the launchers and all of their processes."""
        self._rank_launch.close()


def _write_readings(
    folder: Path, devices: dict[str, DeviceReadings] | None, source: Source | None
) -> None:
    """Write NVML's readings beside the records; none were taken on the cpu tier."""
    if devices is None:
        return
    readings = LaunchReadings(origin="recorded", devices=devices, source=source)
    write_json(readings_path(folder), readings)


def _collect(
    job: Job,
    folder: Path,
    result: LaunchResult,
    devices: Mapping[str, DeviceReadings] | None,
    command: str,
) -> LaunchRecords:
    """Return the records of a launch with NVML's readings. Raises the LaunchFailedError in them."""
    try:
        ranks = collect_records(job, folder, result, command)
        return LaunchRecords(ranks=ranks, devices=devices, alone=result.alone)
    except OutOfMemoryError as error:
        error.devices = devices
        raise
