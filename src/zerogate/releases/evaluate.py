"""Evaluation of packages: cells are measured with them laid over, and the results kept on disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from zerogate.config.file_hash import hash_text
from zerogate.config.options import Options
from zerogate.config.validation import from_json
from zerogate.environment.overlay import InvalidOverlayError
from zerogate.launch.errors import LaunchFailedError
from zerogate.metrics.aggregation import Value
from zerogate.metrics.table import metric_named
from zerogate.protocol.atomic_write import write_json
from zerogate.protocol.cell import Cell, parse_cell
from zerogate.releases.evaluation import Evaluation
from zerogate.report.results import write_results
from zerogate.session.factory import open_session
from zerogate.session.progress import Progress
from zerogate.session.session import Session

LONGEST_NAME = 100
"""Longest name of a folder that lists its packages; a longer one is hashed."""


def evaluate_packages(
    packages: Sequence[str], cells: Sequence[Cell], options: Options, progress: Progress
) -> Evaluation:
    """Measure ``cells`` with ``packages`` laid over. Values of an earlier evaluation with the same
    fingerprint are reused.

    Failures are not reused: the machine may have caused them that day. Raises ConfigError.
    """
    folder = evaluation_folder(options, packages)
    path = folder / "evaluation.json"
    try:
        with laid_over(packages, options, progress) as session:
            folder.mkdir(parents=True, exist_ok=True)
            found = Evaluation(packages=tuple(packages), fingerprint=session.setup.fingerprint())
            kept = _read(path)
            if kept is not None and kept.fingerprint == found.fingerprint:
                found = replace(kept, failures={}, absent={})
            for cell in cells:
                if cell.id not in found.values:
                    found = _with(found, session, cell)
                    write_json(path, found)
    except InvalidOverlayError as error:
        return Evaluation(packages=tuple(packages), invalid=error.reason)
    # An earlier command may have measured more cells.
    requested = {cell.id for cell in cells}
    return replace(
        found, values={name: one for name, one in found.values.items() if name in requested}
    )


def _read(path: Path) -> Evaluation | None:
    """Return the stored evaluation; None if there is none, or the file is not ours."""
    try:
        found = from_json(Evaluation, path.read_bytes())
        for name, values in found.values.items():
            parse_cell(name)
            for metric, value in values.items():
                if metric_named(metric, found.quality_better.get(name)).series != isinstance(
                    value, tuple
                ):
                    return None
    except (OSError, ValueError, KeyError):
        return None
    return found


def evaluate_afresh(
    packages: Sequence[str], cells: Sequence[Cell], options: Options, progress: Progress
) -> Evaluation:
    """Measure ``cells`` with ``packages`` laid over, and reuse nothing of an earlier evaluation."""
    shutil.rmtree(evaluation_folder(options, packages), ignore_errors=True)
    return evaluate_packages(packages, cells, options, progress)


@contextmanager
def laid_over(packages: Sequence[str], options: Options, progress: Progress) -> Iterator[Session]:
    """Open a session whose ranks find ``packages`` first. Raises ConfigError."""
    folder = evaluation_folder(options, packages)
    own = replace(options, packages=tuple(packages), report_folder=folder)
    session = open_session(
        own, launch_hook=lambda job, where: None, progress=progress, save=write_results
    )
    try:
        session.setup.lay_over()
        yield session
    finally:
        session.close()


def evaluation_folder(options: Options, packages: Sequence[str]) -> Path:
    name = ",".join(packages).replace("==", "-")
    if len(name) > LONGEST_NAME or Path(name).name != name or not name.isascii():
        name = hash_text(name)
    return options.report_folder / name


def _with(known: Evaluation, session: Session, cell: Cell) -> Evaluation:
    if why := session.setup.unavailable(cell):
        return replace(known, absent=known.absent | {cell.id: why})
    try:
        found = session.measure(cell)
    except LaunchFailedError as error:
        first = f"{error.kind}: {error.summary.removeprefix(f'{cell.id}: ')}"
        return replace(known, failures=known.failures | {cell.id: first})
    values: dict[str, Value] = {
        name: value
        for name in found.names
        if metric_named(name, found.quality_better).scope == "portable"
        and (value := found.value(name)) is not None
    }
    return replace(
        known,
        software=found.software,
        values=known.values | {cell.id: values},
        quality_better=known.quality_better | {cell.id: found.quality_better},
    )
