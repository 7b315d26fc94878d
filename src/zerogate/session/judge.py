"""Judging in a session: evidence is gathered, regressions are confirmed, verdicts are kept.

Only here judging causes launches: ``gather_evidence`` measures what is missing, and ``verdicts`` does
the rest from values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zerogate.devices.host import host_key
from zerogate.launch.errors import LaunchFailedError
from zerogate.metrics.batch_size import SIZE, searched_kind
from zerogate.metrics.measurement import SPEEDUP
from zerogate.metrics.table import Metric, metric_named
from zerogate.protocol.cell import Cell
from zerogate.verdicts.evidence import SPEEDUPS, Evidence, OtherEnvironment
from zerogate.verdicts.judge import (
    CONFIRMING_LAUNCHES,
    compare_with_reference,
    judge_metric,
    needs_confirmation,
)
from zerogate.verdicts.paired_test import CONFIRMING_PAIRS
from zerogate.verdicts.reference_results import ReferenceResults
from zerogate.verdicts.verdict import Verdict

if TYPE_CHECKING:
    from zerogate.session.session import Session


def judge(session: Session, cell: Cell, name: str) -> Verdict:
    """Return the verdict on one metric of a cell; the cell is measured first if it was not.

    A regression that one launch cannot prove is confirmed by more launches. Raises the
    LaunchFailedError of a launch.
    """
    metric = metric_named(name, session.ensure_measured(cell).quality_better)
    found = judge_metric(gather_evidence(session, cell, metric), metric)
    if needs_confirmation(found, metric):
        confirm(session, cell, metric)
        found = judge_metric(gather_evidence(session, cell, metric), metric)
    return session.keep(found)


def judge_reference_result(
    session: Session, cell: Cell, name: str, results: ReferenceResults
) -> Verdict:
    """Return the verdict on a metric against what others published of the cell.

    Raises the LaunchFailedError of a launch.
    """
    own = session.ensure_measured(cell)
    evidence = Evidence(own=own, hardware=session.hardware(cell), host=host_key())
    return session.keep(compare_with_reference(evidence, name, results))


def gather_evidence(session: Session, cell: Cell, metric: Metric) -> Evidence:
    """Return the evidence for a verdict on the metric; measure what is missing.

    Raises the LaunchFailedError of a launch in this environment.
    """
    own = session.ensure_measured(cell)
    if metric.name == SPEEDUP:
        session.measure(cell.reference)
    elif metric.name in SPEEDUPS:
        session.ensure_measured(cell.reference)
    return Evidence(
        own=own,
        hardware=session.hardware(cell),
        host=host_key(),
        reference=session.measurements.get(cell.reference),
        baseline=session.baseline(cell),
        other=_other_environment(session, cell, metric) if session.against else None,
    )


def _other_environment(session: Session, cell: Cell, metric: Metric) -> OtherEnvironment:
    """Return the same cell in the other environment; measure there what the metric needs."""
    other = session.against
    assert other is not None
    repeats = session.options.repeats
    cells = _cells_behind(metric, cell)
    try:
        if kind := searched_kind(metric):
            for one in cells:
                other.batch_size(one, kind)
        measured = {one: other.ensure_measured(one) for one in cells}
    except LaunchFailedError as error:
        failure = f"{error.kind}: {error.summary}"
        return OtherEnvironment(name=other.name, repeats=repeats, failure=failure)
    return OtherEnvironment(
        name=other.name,
        repeats=repeats,
        own=measured[cell],
        reference=measured.get(cell.reference),
    )


def confirm(session: Session, cell: Cell, metric: Metric) -> None:
    """Launch the cell until there are enough launches to confirm a regression; search sizes anew.

    Training launches are not repeated in a second call. Raises the LaunchFailedError of a launch.
    """
    cells = _cells_behind(metric, cell)
    if session.against is not None:
        if metric.is_speed:
            repeats = session.options.repeats
            session.launch_more(cells, range(repeats, repeats + CONFIRMING_PAIRS))
    elif kind := searched_kind(metric):
        if metric.name == SIZE[kind]:
            session.search_again(kind, cell)
        else:
            session.probe_again(kind, cells)
    else:
        session.launch_more(cells, range(CONFIRMING_LAUNCHES))


def _cells_behind(metric: Metric, cell: Cell) -> tuple[Cell, ...]:
    """Return the cells whose launches decide the metric of ``cell``, the reference first."""
    return (cell.reference, cell) if metric.name in SPEEDUPS else (cell,)
