"""A session's measurements held to baselines, to each other, and to what others published.

What is compared with what, and whether it may be; the comparison itself is ``verdict``'s. Every
verdict is kept with the session.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from zerogate.devices.host import host_key
from zerogate.metrics.aggregation import Value
from zerogate.metrics.measurement import (
    AT_MAX,
    SPEEDUP,
    SPEEDUP_AT_MAX,
    Measurement,
    speedup_at_max,
    speedup_over,
)
from zerogate.metrics.table import Metric, metric_named
from zerogate.protocol.cell import Cell
from zerogate.session.ab_compare import judge_against
from zerogate.session.batch_size import searched_kind
from zerogate.session.session import Session
from zerogate.verdicts import comparability
from zerogate.verdicts import verdict as verdicts
from zerogate.verdicts.baselines import CellBaseline, MetricBaseline
from zerogate.verdicts.reference_results import ReferenceResults
from zerogate.verdicts.verdict import Status, Verdict


def judge(session: Session, cell: Cell, name: str) -> Verdict:
    """Hold one metric of a cell to its baseline. Measures the cell if need be.

    What would regress and differs from launch to launch is measured again first: one slow launch proves
    nothing, and on cards one launch of anything does not.
    """
    metric = metric_named(name, session.known(cell).quality_better)
    found = _judge(session, cell, metric)
    differs = metric.scope == "hardware" or (cell.tier == "gpu" and metric.budget is None)
    if found.status == "regressed" and differs:
        with_ddp = metric.name in (SPEEDUP, SPEEDUP_AT_MAX)
        cells = (cell.reference, cell) if with_ddp else (cell,)
        if session.against is not None:
            if metric.is_speed:
                session.compare_again(*cells)
        elif kind := searched_kind(metric):
            session.probe_again(kind, *cells)
        else:
            session.measure_again(*cells)
        found = _judge(session, cell, metric)
    return keep(session, found)


def judge_published(
    session: Session, cell: Cell, name: str, published: ReferenceResults
) -> Verdict:
    """Hold a metric to what was published of the cell, which holds on that hardware alone."""
    metric = metric_named(name)
    value = published.values(cell)[name]
    found = verdicts.judge(
        cell,
        metric,
        session.known(cell).value(name),
        MetricBaseline(value=value, spread=0.0, launches=(value,)),
    )
    if published.hardware != (here := session.hardware(cell)):
        why = f"published for {published.hardware}, this is {here}"
        found = replace(found, status="not_comparable", note=why)
    return keep(session, replace(found, metric=f"{name}_published", against="published"))


def keep(session: Session, verdict: Verdict) -> Verdict:
    """The verdict, which is now the session's."""
    session.verdicts.append(verdict)
    return verdict


def _judge(session: Session, cell: Cell, metric: Metric) -> Verdict:
    measurement = session.known(cell)
    value = _value(session, measurement, metric)
    if session.against is not None:
        return judge_against(session, session.against, cell, metric, value)
    baseline = session.baseline(cell)
    if value is None:
        note = measurement.notes.get(metric.name, "not measured here")
        if metric.name == SPEEDUP_AT_MAX and AT_MAX in measurement.searched:
            note = "DDP does not fit even one sample: there is nothing to be faster than"
        return Verdict(
            cell=cell, metric=metric.name, status="not_comparable", unit=metric.unit, note=note
        )
    found = verdicts.judge(
        cell, metric, value, baseline.metrics.get(metric.name) if baseline else None
    )
    if note := _both_numbers(session, cell, metric):
        found = replace(found, note=note)
    if baseline is None or found.status == "no_baseline":
        return found
    status, why = _held_back(session, measurement, baseline, metric)
    return replace(found, status=status, note=why) if why else found


def _held_back(
    session: Session, measurement: Measurement, baseline: CellBaseline, metric: Metric
) -> tuple[Status, str]:
    """What it is instead of a comparison, and why; ``ok`` and nothing where the two compare."""
    obstacles = _obstacles(session, measurement, baseline, metric)
    return next(((status, why) for status, why in obstacles if why), ("ok", ""))


def _obstacles(
    session: Session, measurement: Measurement, baseline: CellBaseline, metric: Metric
) -> Iterator[tuple[Status, str]]:
    """Whatever may stand between the two, the gravest first; nothing in words where it does not."""
    cell = measurement.cell
    # Other data is the user's choice; any other difference leaves the cell without a baseline.
    theirs = baseline.settings.get("data_origin")
    chosen = theirs is not None and theirs != measurement.settings["data_origin"]
    why = comparability.comparable(measurement, baseline)
    yield "not_comparable" if chosen else "no_baseline", why
    yield "not_comparable", _other_budget(measurement, baseline, metric.budget)
    if metric.budget is not None:
        yield "invalid", comparability.alone(measurement)
    if metric.scope == "hardware":
        yield "not_comparable", comparability.same_hardware(baseline, session.hardware(cell))
    if metric.name in (SPEEDUP, SPEEDUP_AT_MAX) and cell.reference in session.measurements:
        ddp = session.measurements[cell.reference]
        alone = comparability.alone(ddp) if metric.budget is not None else ""
        yield "invalid", _of_ddp(alone or comparability.undisturbed(ddp))
    yield "not_comparable", comparability.taught(measurement, metric)
    if metric.series:
        yield "not_comparable", comparability.same_steps(measurement, baseline)
    if metric.is_speed:
        if cell.tier == "gpu":
            yield "not_comparable", comparability.same_host(baseline, host_key())
        yield "invalid", comparability.same_speed(measurement, baseline)


def _of_ddp(why: str) -> str:
    return f"DDP: {why}" if why else ""


def _value(session: Session, measurement: Measurement, metric: Metric) -> Value | None:
    if metric.name == SPEEDUP:
        return speedup_over(session.measure(measurement.cell.reference), measurement)
    if metric.name == SPEEDUP_AT_MAX:
        return speedup_at_max(session.known(measurement.cell.reference), measurement)
    return measurement.value(metric.name)


def _both_numbers(session: Session, cell: Cell, metric: Metric) -> str:
    """What a speedup is made of, so that a slower DDP does not read as a faster strategy."""
    ddp, own = session.measurements.get(cell.reference), session.known(cell)
    if ddp is not None and metric.name == SPEEDUP:
        name = "epoch_seconds"
        return f"DDP {ddp.scalar(name):.2f} s an epoch, this {own.scalar(name):.2f} s"
    if ddp is not None and metric.name == SPEEDUP_AT_MAX:
        theirs, ours = (
            f"{one.scalar(AT_MAX):.1f} samples/s at {one.value('max_micro_batch_size')}"
            for one in (ddp, own)
        )
        return f"DDP {theirs}, this {ours}"
    return ""


def _other_budget(measurement: Measurement, baseline: CellBaseline, budget: str | None) -> str:
    """Why a batch size is not comparable: it was searched under another budget."""
    if budget is None or budget not in baseline.metrics:
        return ""
    ours, theirs = measurement.value(budget), baseline.metrics[budget].value
    return f"recorded with a budget of {theirs} bytes, this is {ours}" if ours != theirs else ""
