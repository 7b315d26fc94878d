"""Recording of baselines from a session. Only what changed is written, so that diffs are short."""

from __future__ import annotations

import datetime
import math
import subprocess
from dataclasses import replace
from pathlib import Path

from zerogate.devices.cards import driver
from zerogate.devices.host import host_key
from zerogate.metrics.aggregation import DEVICE_PEAKS
from zerogate.metrics.measurement import (
    SPEEDUP,
    SPEEDUP_AT_MAX,
    Measurement,
    speedup_at_max,
    speedups,
)
from zerogate.metrics.table import metric_named
from zerogate.protocol.cell import Cell
from zerogate.session.session import Session
from zerogate.verdicts.baselines import (
    BaselineFile,
    CellBaseline,
    Provenance,
    of_measurement,
    with_speedup,
    write_baselines,
)
from zerogate.verdicts.comparability import other_settings
from zerogate.verdicts.invariants import judge_same
from zerogate.verdicts.verdict import compare


def record_baselines(session: Session, reason: str) -> tuple[list[Path], dict[Cell, str]]:
    """Write the baselines of the measured cells, and return the files, and by cell what was left out.

    Nothing is recorded of a cell whose numbers are not finite, whose launches took different numbers
    of steps, that is out of parity with DDP, or that broke an invariant in a test of this session. A
    metric keeps its old entry if the old baseline accepts the new value. Raises OSError.
    """
    broken = unfit(session)
    by_file: dict[Path, list[Cell]] = {}
    for cell in sorted(session.measurements):
        if cell not in broken:
            by_file.setdefault(session.baseline_path(cell), []).append(cell)
    written = []
    for path, cells in by_file.items():
        old = session.baseline_file(path)
        merged = dict(old.cells)
        for cell in cells:
            merged[cell.key] = _merge(
                session.measurements[cell], old.cells.get(cell.key), _record(session, cell, reason)
            )
        if merged != old.cells:
            write_baselines(
                path,
                BaselineFile(
                    schema_version=old.schema_version, workload=old.workload, cells=merged
                ),
            )
            written.append(path)
    parts = {cell: left_out(one) for cell, one in session.measurements.items()}
    return written, {cell: why for cell, why in parts.items() if why} | broken


def unfit(session: Session) -> dict[Cell, str]:
    """Return, by cell, why nothing of it is recorded."""
    found: dict[Cell, str] = {}
    for verdict in session.verdicts:
        if verdict.against not in ("baseline", "published") and verdict.status == "regressed":
            found.setdefault(verdict.cell, f"{verdict.metric} does not hold")
    for cell, measurement in session.measurements.items():
        if wrong := _not_finite(measurement):
            found.setdefault(cell, f"{wrong} is not finite")
        losses = [launch.values["loss"] for launch in measurement.launches]
        if len({len(loss) for loss in losses if isinstance(loss, tuple)}) > 1:
            found.setdefault(cell, "its launches took different numbers of steps")
        if not _in_parity(session, cell):
            found.setdefault(cell, "it does not compute what DDP does")
    return found


def _not_finite(measurement: Measurement) -> str:
    """Return the name of a metric that is not finite, or "": a cell that diverged is no baseline."""
    for values in (*(launch.values for launch in measurement.launches), measurement.searched):
        for name, value in values.items():
            if not all(map(math.isfinite, value if isinstance(value, tuple) else (value,))):
                return name
    return ""


def _in_parity(session: Session, cell: Cell) -> bool:
    """Return whether the cell computes what DDP does; its own tests of that may not have run."""
    own, ddp = session.measurements[cell], session.measurements.get(cell.reference)
    if cell.tier != "cpu" or ddp is None or not (own.launches and ddp.launches):
        # Full-size cells need not be equal (test_parity), and a search for batch sizes has no losses.
        return True
    verdicts = [judge_same(metric_named(name), own, ddp) for name in ("loss", "gradient_norm")]
    return all(verdict.status == "ok" for verdict in verdicts)


def _record(session: Session, cell: Cell, reason: str) -> CellBaseline:
    measurement = session.measurements[cell]
    provenance = Provenance(
        recorded=datetime.date.today().isoformat(),
        commit=_commit(session.options.root),
        reason=reason,
        hardware=session.hardware(cell),
        canary_seconds=float(f"{measurement.canary_seconds:.3g}"),
        software=measurement.software | _beside_card(cell),
    )
    baseline = of_measurement(measurement, provenance)
    kept = {
        name: entry
        for name, entry in baseline.metrics.items()
        if not _not_comparable(measurement, name)
    }
    baseline = replace(baseline, metrics=kept)
    reference = session.measurements.get(cell.reference)
    if (
        reference is None
        or cell.is_reference
        or measurement.device_events
        or reference.device_events
    ):
        return baseline
    at_max = speedup_at_max(reference, measurement)
    if at_max is not None and not (
        measurement.probe_other_processes or reference.probe_other_processes
    ):
        baseline = with_speedup(baseline, SPEEDUP_AT_MAX, (at_max,))
    if not (reference.launches and measurement.launches):
        return baseline
    return with_speedup(baseline, SPEEDUP, speedups(measurement, reference))


def _beside_card(cell: Cell) -> dict[str, str]:
    """Return what a card's numbers depend on besides the packages; empty on the cpu tier."""
    return {"driver": driver()[0], "host": host_key()} if cell.tier == "gpu" else {}


def _not_comparable(measurement: Measurement, name: str) -> bool:
    """Return whether what happened on the devices makes the metric not comparable.

    As a baseline, the seconds of a throttled device, or sizes found beside another process, would
    admit any later change. Nor is a peak recorded that some launches do not have.
    """
    if name in DEVICE_PEAKS.values() and measurement.peak_missing:
        return True
    metric = metric_named(name, measurement.quality_better)
    sizes = metric.budget is not None and measurement.probe_other_processes
    return bool(sizes or (metric.is_speed and measurement.device_events))


def left_out(measurement: Measurement) -> str:
    """Return what is not recorded of the cell, with the reason; empty if everything is recorded."""
    found = []
    if measurement.device_events:
        found.append(f"no seconds: {'; '.join(dict.fromkeys(measurement.device_events))}")
    if measurement.probe_other_processes:
        found.append("no batch sizes: another process was on the device")
    if DEVICE_PEAKS.get(measurement.device_source) and measurement.peak_missing:
        found.append(f"no peak of the process: {measurement.peak_missing}")
    return "; ".join(found)


def _merge(measurement: Measurement, old: CellBaseline | None, new: CellBaseline) -> CellBaseline:
    """Return ``new`` with the entries of ``old`` for all metrics that did not change."""
    if old is None or other_settings(measurement, old):
        return new
    if old.provenance.hardware != new.provenance.hardware:
        return new
    # Entries that this session did not measure stay: a speedup without DDP, batch sizes, or all others.
    kept = {
        name: entry for name, entry in old.metrics.items() if not _asked_for(name, measurement)
    } | new.metrics
    speeds = {name: new.metrics[name] for name in new.metrics if _is_speed(name, measurement)}
    host = old.provenance.software.get("host")
    moved = bool(speeds) and host != new.provenance.software.get("host")
    if moved:  # Seconds of another host are not valid here.
        kept = {name: kept[name] for name in kept if not _is_speed(name, measurement)} | speeds
    slower_or_faster = moved
    for name, entry in old.metrics.items():
        if name not in kept:
            continue
        metric = metric_named(name, measurement.quality_better)
        if compare(measurement.cell, metric, kept[name].value, entry).status == "ok":
            kept[name] = entry
        elif metric.is_speed:
            slower_or_faster = True
    if slower_or_faster:
        # All seconds are from one recording: they depend on the machine's speed at that time.
        return replace(new, metrics=kept | speeds)
    if kept == old.metrics:
        return old
    software = new.provenance.software | ({"host": host} if host else {})
    provenance = replace(
        new.provenance, canary_seconds=old.provenance.canary_seconds, software=software
    )
    return replace(new, metrics=kept, provenance=provenance)


def _is_speed(name: str, measurement: Measurement) -> bool:
    return metric_named(name, measurement.quality_better).is_speed


def _asked_for(name: str, measurement: Measurement) -> bool:
    if name in (SPEEDUP, SPEEDUP_AT_MAX):
        return False
    if _not_comparable(measurement, name):
        return False
    budget = metric_named(name, measurement.quality_better).budget
    return bool(measurement.launches) if budget is None else budget in measurement.searched


def _commit(root: Path) -> str:
    """Return the project's commit, with ``+`` if files differ from it; ``unknown`` outside of git.

    Baselines do not count, because recording changes them.
    """
    try:
        head = _git(root, "rev-parse", "--short=10", "HEAD")
        return head + (
            "+" if _git(root, "status", "--porcelain", "-uno", "--", ":!baselines") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
    )
    return result.stdout.strip()
