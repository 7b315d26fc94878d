"""The session: which launches a cell needs, in which order, measured once, kept on disk.

The only place that knows the whole story. A cell is measured when first asked for; whoever asks
again, as the reference of another cell too, gets the same measurement or the same failure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from zerogate import verdict as judging
from zerogate.baseline import BaselineFile, CellBaseline, read_baselines
from zerogate.cell import Cell
from zerogate.devices.cards import cards_key
from zerogate.devices.host import host_key
from zerogate.launch.errors import LaunchFailedError
from zerogate.launch.launcher import Launcher
from zerogate.measurement import Measurement, Value, launch_values, measure, speedup_over
from zerogate.metric import Metric, metric_named
from zerogate.runner import LaunchHook, Options, Runner, Step
from zerogate.verdict import Verdict

CONFIRMING_LAUNCHES = 3
"""A cell that seems slow is launched this many times in all, and judged by the median."""

SPEEDUP = "speedup_over_ddp"

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
    ) -> None:
        self.options = options
        self.runner = Runner(options, launchers=launchers, launch_hook=launch_hook, notify=notify)
        self.measurements: dict[Cell, Measurement] = {}
        self.failures: dict[Cell, LaunchFailedError] = {}
        self.verdicts: list[Verdict] = []
        self.notify = notify
        self._baselines: dict[Path, BaselineFile] = {}

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
                repeats = self.options.repeats
                records = [self.runner.launch(cell, index, repeats) for index in range(repeats)]
            except LaunchFailedError as error:
                self.failures[cell] = error
                self.notify(Step(error.summary, cell, "failed"))
                raise
            self.measurements[cell] = measure(cell, records)
            self.notify(Step("measured", cell, "done"))
        return self.measurements[cell]

    def _measure_again(self, *cells: Cell) -> None:
        """Launch measured cells, in turn, until they have enough launches to be called slow.

        In turn, because a machine's speed drifts over minutes: what is compared is measured close
        together.
        """
        for index in range(CONFIRMING_LAUNCHES):
            for cell in cells:
                found = self.measurements[cell]
                if index < len(found.launches):
                    continue
                try:
                    records = self.runner.launch(cell, index, CONFIRMING_LAUNCHES)
                except LaunchFailedError as error:
                    self.failures[cell] = error
                    raise
                launches = (*found.launches, launch_values(records))
                self.measurements[cell] = replace(found, launches=launches)

    # Judging

    def judge(self, cell: Cell, name: str) -> Verdict:
        """Hold one metric of a measured cell to its baseline. Measures the cell if need be.

        Seconds that would regress are measured again first: one slow launch proves nothing.
        """
        metric = metric_named(name, self.measure(cell).quality_better)
        found = self._judge(cell, metric)
        if found.status == "regressed" and metric.scope == "hardware":
            both = (cell.reference, cell) if metric.name == SPEEDUP else (cell,)
            self._measure_again(*both)
            found = self._judge(cell, metric)
        return self._keep(found)

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

    def _judge(self, cell: Cell, metric: Metric) -> Verdict:
        measurement = self.measure(cell)
        value = self._value(measurement, metric)
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
            ddp, ours = (
                self.measure(one).scalar("epoch_seconds") for one in (cell.reference, cell)
            )
            found = replace(found, note=f"DDP {ddp:.2f} s an epoch, this {ours:.2f} s")
        if baseline is None or found.status == "no_baseline":
            return found
        if why := judging.comparable(measurement, baseline):
            # Other data is the user's choice; any other difference leaves the cell without one.
            theirs = baseline.settings.get("data_origin")
            chosen = theirs is not None and theirs != measurement.settings["data_origin"]
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
