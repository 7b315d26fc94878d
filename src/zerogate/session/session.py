"""The session: it launches each cell in the right order, measures it once and keeps the result.

A cell that is needed again, also as the reference of another cell, has the same measurement or the same
failure. ``session.judge`` gathers what a measurement is compared with.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from zerogate.config.options import Options
from zerogate.devices.cards import cards_key
from zerogate.devices.host import host_key
from zerogate.launch.deadlines import Deadlines, deadlines
from zerogate.launch.errors import LaunchFailedError
from zerogate.launch.launcher import Launcher
from zerogate.metrics.aggregation import launch_values
from zerogate.metrics.batch_size import BatchSize, with_batch_sizes
from zerogate.metrics.device_use import LaunchRecords
from zerogate.metrics.measurement import Measurement, describe, measure
from zerogate.protocol.cell import Cell
from zerogate.protocol.job import BatchKind
from zerogate.session.batch_size import (
    confirm_batch_size,
    find_batch_size,
    recorded_size,
    search_again,
    time_alone,
)
from zerogate.session.progress import Progress, ProgressUpdate
from zerogate.session.rank_setup import RankSetup
from zerogate.session.runner import JobChanges, LaunchHook, Runner
from zerogate.verdicts.baselines import BaselineFile, CellBaseline, read_baselines
from zerogate.verdicts.reference_results import ReferenceResults, read_reference_results
from zerogate.verdicts.verdict import Verdict

CPU_BASELINES = "cpu-gloo"


class Session:
    """Measurements of cells, the verdicts on them, and the runner that launches the cells.

    ``against`` is a second session, for another environment, whose launches alternate with this one's.
    """

    def __init__(
        self,
        options: Options,
        *,
        launchers: Mapping[str, Callable[[], Launcher]],
        launch_hook: LaunchHook = lambda job, folder: None,
        progress: Progress = lambda update: None,
        against: Session | None = None,
    ) -> None:
        self.options = options
        self.against = against
        self.progress = progress
        self.setup = RankSetup(options, progress)
        self.runner: Runner = Runner(
            self.setup,
            launchers=launchers,
            launch_hook=launch_hook,
            deadlines=self.deadlines,
            # Both sessions launch on the same devices.
            idle=against.runner.idle if against else None,
            sources=against.runner.sources if against else None,
        )
        self.measurements: dict[Cell, Measurement] = {}
        self.failures: dict[Cell, LaunchFailedError] = {}
        self.batch_sizes: dict[tuple[Cell, BatchKind], BatchSize] = {}
        self.search_failures: dict[tuple[Cell, BatchKind], LaunchFailedError] = {}
        self.verdicts: list[Verdict] = []
        self._variants: dict[tuple[Cell, str], Measurement] = {}
        self._baselines: dict[Path, BaselineFile] = {}

    @property
    def name(self) -> str:
        """The packages that are laid over this environment, in words."""
        return str(self.setup.overlay or "this environment")

    @property
    def errors(self) -> list[tuple[Cell, LaunchFailedError]]:
        """Cells that could not be measured, in training or in a search, each with its error."""
        searches = ((cell, error) for (cell, _), error in self.search_failures.items())
        return sorted([*self.failures.items(), *searches], key=lambda pair: pair[0])

    def hardware(self, cell: Cell) -> str:
        """Return the key of the machine on which seconds of this cell are comparable."""
        if cell.tier == "cpu":
            return host_key()
        place = self.setup.assignment(cell)
        shared = f"{cards_key(len(place.devices))}-shared"
        return shared if place.shared else cards_key(cell.world_size)

    def keep(self, verdict: Verdict) -> Verdict:
        """Add ``verdict`` to the session's verdicts, and return it."""
        self.verdicts.append(verdict)
        return verdict

    # Measuring

    def measure(self, cell: Cell) -> Measurement:
        """Return the cell's measurement; launch it for training if it has no training launches.

        Raises the LaunchFailedError that its launch ended with.
        """
        if cell in self.failures:
            raise self.failures[cell]
        if cell not in self.measurements or not self.measurements[cell].launches:
            try:
                repeats = self.options.repeats
                launches = [self._launch_pair(cell, index, repeats) for index in range(repeats)]
            except LaunchFailedError as error:
                self.failures[cell] = error
                self.progress(ProgressUpdate(error.summary, cell, "failed"))
                raise
            self.measurements[cell] = self._with_batch_sizes(measure(cell, launches))
            self.progress(ProgressUpdate("measured", cell, "done"))
        return self.measurements[cell]

    def ensure_measured(self, cell: Cell) -> Measurement:
        """Return the cell's measurement; launch it for training if nothing of it was measured.

        Batch sizes do not need the cell to have trained. Raises the LaunchFailedError of a launch.
        """
        return self.measurements.get(cell) or self.measure(cell)

    def _launch_pair(self, cell: Cell, index: int, of: int) -> LaunchRecords:
        """Launch the cell once, and once in the other environment if there is one.

        The order alternates, A B B A A B, so that a machine that becomes slower slows both alike.
        """
        other = self.against
        if other is not None and index % 2:
            other.add_launch(cell, index, of)
        found = self.runner.launch(cell, index, of)
        if other is not None and not index % 2:
            other.add_launch(cell, index, of)
        return found

    def add_launch(self, cell: Cell, index: int, of: int) -> None:
        """Add one launch to ``cell``'s measurement. After a failure, which is kept, launch nothing."""
        if cell in self.failures:
            return
        try:
            launch = self.runner.launch(cell, index, of)
        except LaunchFailedError as error:
            self.failures[cell] = error
            return
        self._add(cell, launch)

    def _add(self, cell: Cell, launch: LaunchRecords) -> None:
        found = self.measurements.get(cell)
        if found is None or not found.launches:
            self.measurements[cell] = self._with_batch_sizes(measure(cell, [launch]))
        else:
            launches = (*found.launches, launch_values(launch))
            self.measurements[cell] = replace(found, launches=launches)

    def launch_more(self, cells: Sequence[Cell], numbers: range) -> None:
        """Launch measured cells until each has the launches ``numbers``, in turn and in pairs.

        A machine's speed drifts over minutes, so that values to compare are measured close together.
        Raises the LaunchFailedError of a launch.
        """
        for index in numbers:
            for cell in cells:
                if index < len(self.measurements[cell].launches):
                    continue
                try:
                    launch = self._launch_pair(cell, index, numbers.stop)
                except LaunchFailedError as error:
                    self.failures[cell] = error
                    raise
                self._add(cell, launch)

    def variant(self, cell: Cell, name: str, changes: JobChanges) -> Measurement:
        """Return the measurement of ``cell`` after a few steps with ``changes``, launched once.

        Raises the LaunchFailedError that its launch ended with.
        """
        if (cell, name) not in self._variants:
            launch = self.runner.launch_variant(cell, name, changes)
            self._variants[cell, name] = measure(cell, [launch])
        return self._variants[cell, name]

    # Batch sizes

    def batch_size(self, cell: Cell, kind: BatchKind) -> BatchSize:
        """Return the largest batch that fits the memory budget, searched once.

        Raises the LaunchFailedError of a probe that failed.
        """
        if (cell, kind) in self.search_failures:
            raise self.search_failures[cell, kind]
        if (cell, kind) not in self.batch_sizes:
            launch = partial(self.runner.probe, cell)
            try:
                found, record = find_batch_size(
                    launch, kind, recorded_size(self.baseline(cell), kind)
                )
                if found.size and found.samples_per_second is None and self.runner.alone:
                    self.setup.finish_compiling()
                    found = time_alone(launch, found)
            except LaunchFailedError as error:
                self.search_failures[cell, kind] = error
                self.progress(ProgressUpdate(error.summary, cell, "failed"))
                raise
            self.batch_sizes[cell, kind] = found
            dtype = self.setup.requested(cell)["dtype"]
            measured = self.measurements.get(cell) or describe(cell, record, dtype=dtype)
            self.measurements[cell] = self._with_batch_sizes(measured)
            self.progress(ProgressUpdate("searched", cell, "done"))
        return self.batch_sizes[cell, kind]

    def search_again(self, kind: BatchKind, cell: Cell) -> None:
        """Search the largest batch of ``cell`` a second time, and keep the larger of the two sizes.

        Raises the LaunchFailedError of a probe that failed.
        """
        guess = recorded_size(self.baseline(cell), kind)
        self.batch_sizes[cell, kind] = search_again(
            partial(self.runner.probe, cell), self.batch_sizes[cell, kind], guess
        )
        self.measurements[cell] = self._with_batch_sizes(self.measurements[cell])

    def probe_again(self, kind: BatchKind, cells: Sequence[Cell]) -> None:
        """Launch the largest batch of each cell again, and keep the median of its speeds.

        Raises the LaunchFailedError of a launch.
        """
        for cell in cells:
            self.batch_sizes[cell, kind] = confirm_batch_size(
                partial(self.runner.probe, cell), self.batch_sizes[cell, kind]
            )
            self.measurements[cell] = self._with_batch_sizes(self.measurements[cell])

    def _with_batch_sizes(self, measurement: Measurement) -> Measurement:
        found = [one for (cell, _), one in self.batch_sizes.items() if cell == measurement.cell]
        return with_batch_sizes(measurement, found)

    # Baselines

    @functools.cached_property
    def reference_results(self) -> list[ReferenceResults]:
        """Results that others published of cells. Raises ConfigError."""
        return read_reference_results(self.options.project.baselines)

    def baseline_path(self, cell: Cell) -> Path:
        """Return the file that has the baseline of ``cell``.

        All CPUs share one folder. Each kind of card has its own, because bytes depend on the hardware.
        """
        folder = self.options.baseline_folder
        if folder is None:
            key = CPU_BASELINES if cell.tier == "cpu" else self.hardware(cell)
            key += "-real-data" if self.options.data_folder else ""
            folder = self.options.project.baselines / key
        return folder / f"{cell.workload}.json"

    def baseline_file(self, path: Path) -> BaselineFile:
        """Return the baselines in ``path``, read once. Raises ConfigError."""
        if path not in self._baselines:
            self._baselines[path] = read_baselines(path)
        return self._baselines[path]

    def baseline(self, cell: Cell) -> CellBaseline | None:
        """Return the baseline of ``cell``; None if there is none. Raises ConfigError."""
        return self.baseline_file(self.baseline_path(cell)).cells.get(cell.key)

    def deadlines(self, cell: Cell) -> Deadlines:
        """Return the times that a launch of ``cell`` may take, from those of its baseline."""
        limit = self.options.deadline_seconds
        if (baseline := self.baseline(cell)) is None:
            return deadlines(cell.tier, launch=limit)
        epochs = float(baseline.settings.get("epochs", 1))
        return deadlines(cell.tier, baseline.scalars(), epochs=epochs, launch=limit)

    # The start and the end

    def start_compiling(self, cells: Iterable[Cell]) -> None:
        """Start to compile what ``cells`` need, so that others need not wait. Raises ConfigError."""
        if self.against is None:  # Else all launches are timed.
            self.setup.start_compiling(cells)

    def finish(self) -> None:
        """Note that everything was measured: there is nothing to resume."""
        for one in filter(None, (self, self.against)):
            one.runner.finish()

    def close(self) -> None:
        """End the launchers and what is compiled, also those of the other environment."""
        for one in filter(None, (self, self.against)):
            one.runner.close()
            one.setup.close()
