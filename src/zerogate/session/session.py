"""The session: which launches a cell needs, in which order, measured once, kept on disk.

The only place that knows the whole story. A cell is measured when first asked for; whoever asks
again, as the reference of another cell too, gets the same measurement or the same failure.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from zerogate.config.options import Options
from zerogate.devices.cards import cards_key
from zerogate.devices.host import host_key
from zerogate.launch.deadlines import Deadlines, deadlines
from zerogate.launch.errors import LaunchFailedError
from zerogate.launch.launcher import Launcher
from zerogate.metrics.aggregation import Value, launch_values
from zerogate.metrics.measurement import Measurement, described, measure
from zerogate.protocol.cell import Cell
from zerogate.protocol.record import BatchKind, RankRecord
from zerogate.session.batch_size import CONFIRMING_LAUNCHES, SIZE, BatchSize, confirm, find
from zerogate.session.runner import LaunchHook, Runner, Step
from zerogate.verdicts.baselines import BaselineFile, CellBaseline, read_baselines
from zerogate.verdicts.paired_test import CONFIRMING_PAIRS
from zerogate.verdicts.reference_results import ReferenceResults, read_reference_results
from zerogate.verdicts.verdict import Verdict

VARIANT_STEPS = 6
"""The first two train at learning rate 0; the others compare what the optimizer made of them."""

CPU_BASELINES = "cpu-gloo"


class Session:
    """Measures and judges cells; holds the launchers, the measurements and the verdicts."""

    def __init__(
        self,
        options: Options,
        *,
        launchers: Mapping[str, Callable[[], Launcher]],
        launch_hook: LaunchHook = lambda job, folder: None,
        notify: Callable[[Step], None] = lambda step: None,
        against: Session | None = None,
    ) -> None:
        self.options = options
        self.against = against
        self.runner: Runner = Runner(
            options,
            launchers=launchers,
            launch_hook=launch_hook,
            deadlines=self.deadlines,
            notify=notify,
            # The devices are the same, whoever launches on them.
            idle=against.runner.idle if against else None,
        )
        self.measurements: dict[Cell, Measurement] = {}
        self.failures: dict[Cell, LaunchFailedError] = {}
        self.batch_sizes: dict[tuple[Cell, BatchKind], BatchSize] = {}
        self.search_failures: dict[tuple[Cell, BatchKind], LaunchFailedError] = {}
        self.verdicts: list[Verdict] = []
        self.notify = notify
        self._variants: dict[tuple[Cell, str], Measurement] = {}
        self._baselines: dict[Path, BaselineFile] = {}

    @property
    def name(self) -> str:
        """Of the environment: what is laid over it."""
        return str(self.runner.overlay or "this environment")

    def hardware(self, cell: Cell) -> str:
        """The key of the machine that seconds of this cell belong to."""
        if cell.tier == "cpu":
            return host_key()
        place = self.runner.assignment(cell)
        if place.shared:
            return f"{cards_key(len(place.devices))}-shared"
        return cards_key(cell.world_size)

    # Measuring

    def measure(self, cell: Cell) -> Measurement:
        """The cell's measurement. Raises the LaunchFailedError that its launch ended with."""
        if cell in self.failures:
            raise self.failures[cell]
        if cell not in self.measurements or not self.measurements[cell].launches:
            try:
                records = self._launch(cell)
            except LaunchFailedError as error:
                self.failures[cell] = error
                self.notify(Step(error.summary, cell, "failed"))
                raise
            self.measurements[cell] = self._with_batch_sizes(measure(cell, records))
            self.notify(Step("measured", cell, "done"))
        return self.measurements[cell]

    def _launch(self, cell: Cell) -> list[tuple[RankRecord, ...]]:
        """As many launches as were asked for; with another environment, in turn: A B B A A B and so
        on, so that a machine that grows slower grows slower for both.
        """
        repeats = self.options.repeats
        return [self._pair(cell, index, repeats) for index in range(repeats)]

    def _pair(self, cell: Cell, index: int, of: int) -> tuple[RankRecord, ...]:
        if self.against is not None and index % 2:
            self.against.launch_once(cell, index, of)
        found = self.runner.launch(cell, index, of)
        if self.against is not None and not index % 2:
            self.against.launch_once(cell, index, of)
        return found

    def compare_again(self, *cells: Cell) -> None:
        """Launch measured cells some more times in both environments, once: what seemed slower has to
        seem so in these alone.
        """
        repeats = self.options.repeats
        self._launch_more(cells, range(repeats, repeats + CONFIRMING_PAIRS), self._pair)

    def launch_once(self, cell: Cell, index: int, of: int) -> None:
        """Add a launch to ``cell``'s measurement; a failure is kept, and nothing is launched after."""
        if cell in self.failures:
            return
        try:
            records = self.runner.launch(cell, index, of)
        except LaunchFailedError as error:
            self.failures[cell] = error
            return
        self._add(cell, records)

    def _add(self, cell: Cell, records: Sequence[RankRecord]) -> None:
        """Put one more launch into ``cell``'s measurement."""
        found = self.measurements.get(cell)
        if found is None or not found.launches:
            self.measurements[cell] = self._with_batch_sizes(measure(cell, [records]))
        else:
            launches = (*found.launches, launch_values(records))
            self.measurements[cell] = replace(found, launches=launches)

    def finish(self) -> None:
        """Everything was measured: there is nothing to resume."""
        for one in filter(None, (self, self.against)):
            one.runner.finish()

    def close(self) -> None:
        """End the launchers, the other environment's too."""
        for one in filter(None, (self, self.against)):
            one.runner.close()

    def variant(self, cell: Cell, name: str, **asked: Any) -> Measurement:
        """``cell`` trained for a few steps in another way, once: ``asked`` are fields of its job.

        Raises the LaunchFailedError that its launch ended with.
        """
        if (cell, name) not in self._variants:
            records = self.runner.vary(cell, name, steps=VARIANT_STEPS, **asked)
            self._variants[cell, name] = measure(cell, [records])
        return self._variants[cell, name]

    def measure_again(self, *cells: Cell) -> None:
        """Launch measured cells, in turn, until they have enough launches to be called slow.

        In turn, because a machine's speed drifts over minutes: what is compared is measured close
        together.
        """
        self._launch_more(cells, range(CONFIRMING_LAUNCHES), self.runner.launch)

    def _launch_more(
        self,
        cells: Sequence[Cell],
        numbers: range,
        launch: Callable[[Cell, int, int], tuple[RankRecord, ...]],
    ) -> None:
        """Have each cell launched with those ``numbers`` that it was not yet, in turn."""
        for index in numbers:
            for cell in cells:
                if index < len(self.measurements[cell].launches):
                    continue
                try:
                    records = launch(cell, index, numbers.stop)
                except LaunchFailedError as error:
                    self.failures[cell] = error
                    raise
                self._add(cell, records)

    def batch_size(self, cell: Cell, kind: BatchKind) -> BatchSize:
        """The largest batch that fits the budget. Raises the LaunchFailedError of a failed probe."""
        if (cell, kind) in self.search_failures:
            raise self.search_failures[cell, kind]
        if (cell, kind) not in self.batch_sizes:
            baseline = self.baseline(cell)
            known = baseline.metrics.get(SIZE[kind]) if baseline else None
            guess = known.value if known is not None and isinstance(known.value, int) else None
            try:
                found, record = find(partial(self.runner.probe, cell), kind, guess or None)
            except LaunchFailedError as error:
                self.search_failures[cell, kind] = error
                self.notify(Step(error.summary, cell, "failed"))
                raise
            self.batch_sizes[cell, kind] = found
            dtype = self.runner.requested(cell)["dtype"]
            measured = self.measurements.get(cell) or described(cell, record, dtype=dtype)
            self.measurements[cell] = self._with_batch_sizes(measured)
            self.notify(Step("searched", cell, "done"))
        return self.batch_sizes[cell, kind]

    def probe_again(self, kind: BatchKind, *cells: Cell) -> None:
        """Launch the largest batch of cells until there are enough launches to call it slow."""
        for cell in cells:
            self.batch_sizes[cell, kind] = confirm(
                partial(self.runner.probe, cell), self.batch_sizes[cell, kind]
            )
            self.measurements[cell] = self._with_batch_sizes(self.measurements[cell])

    def _with_batch_sizes(self, measurement: Measurement) -> Measurement:
        """``measurement`` with what was searched of its cell by now."""
        cell = measurement.cell
        searched: dict[str, Value] = {}
        notes = dict(measurement.notes)
        troubles: list[str] = []
        strangers: set[int] = set()
        for (its, _), found in self.batch_sizes.items():
            if its == cell:
                searched |= found.values()
                notes |= found.notes()
                troubles += found.troubles
                strangers |= {*found.strangers}
        return replace(
            measurement,
            searched=searched,
            notes=notes,
            probe_troubles=tuple(troubles),
            probe_strangers=tuple(sorted(strangers)),
        )

    def known(self, cell: Cell) -> Measurement:
        """What is known of a cell: batch sizes do not need it to have trained.

        Raises the LaunchFailedError that a launch of it ended with.
        """
        return self.measurements.get(cell) or self.measure(cell)

    @property
    def errors(self) -> list[tuple[Cell, LaunchFailedError]]:
        """Cells of which something could not be measured, each with why: training, or a search."""
        searches = ((cell, error) for (cell, _), error in self.search_failures.items())
        return sorted([*self.failures.items(), *searches], key=lambda pair: pair[0])

    # What is held to

    @functools.cached_property
    def published(self) -> list[ReferenceResults]:
        """What others published. Raises ConfigError."""
        return read_reference_results(self.options.root)

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

    def deadlines(self, cell: Cell) -> Deadlines:
        """How long a launch of ``cell`` may take, by what its baseline took."""
        limit, baseline = self.options.deadline_seconds, self.baseline(cell)
        if baseline is None:
            return deadlines(cell.tier, launch=limit)
        epochs = float(baseline.settings.get("epochs", 1))
        return deadlines(cell.tier, baseline.scalars(), epochs=epochs, launch=limit)

    def baseline(self, cell: Cell) -> CellBaseline | None:
        return self.baseline_file(self.baseline_path(cell)).cells.get(cell.key)
