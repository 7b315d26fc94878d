"""Cells of this environment held to the same cells of another, measured in the same session.

What is exact is compared as with a baseline. Seconds are compared launch by launch, as they were made
in turn: nobody has to know how fast the machine was on another day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from zerogate.launch.errors import LaunchFailedError
from zerogate.metrics.aggregation import Value
from zerogate.metrics.measurement import (
    SPEEDUP,
    SPEEDUP_AT_MAX,
    Measurement,
    differing_settings,
    median,
    speedup_at_max,
)
from zerogate.metrics.table import Metric
from zerogate.protocol.cell import Cell
from zerogate.session.batch_size import searched_kind
from zerogate.session.session import Session
from zerogate.verdicts import verdict as verdicts
from zerogate.verdicts.baselines import Provenance, of_measurement
from zerogate.verdicts.comparability import CANARY_LIMIT
from zerogate.verdicts.paired_test import CONFIDENCE, CONFIRMING, MARGIN, compare
from zerogate.verdicts.verdict import Status, Verdict

STATUS: dict[str, Status] = {"slower": "regressed", "not slower": "ok", "cannot tell": "invalid"}

NOWHERE = Provenance(
    recorded="", commit="", reason="", hardware="", canary_seconds=1.0, software={}
)
"""Of what is kept in no file."""


def judge_against(
    session: Session, other: Session, cell: Cell, metric: Metric, value: Value | None
) -> Verdict:
    """Hold ``value``, which ``session`` measured of ``cell``, to what ``other`` measured."""
    label = other.name

    def not_comparable(why: str) -> Verdict:
        return Verdict(
            cell=cell, metric=metric.name, status="not_comparable", unit=metric.unit,
            against=label, note=why,
        )  # fmt: skip

    if value is None:
        return not_comparable("not measured here")
    own = session.known(cell)
    needs_ddp = metric.name in (SPEEDUP, SPEEDUP_AT_MAX)
    try:
        if kind := searched_kind(metric):
            for one in (cell.reference, cell) if needs_ddp else (cell,):
                other.batch_size(one, kind)
        theirs = other.known(cell)
        theirs_ddp = other.known(cell.reference) if needs_ddp else theirs
    except LaunchFailedError as error:
        return not_comparable(f"{label}: {error.kind}: {error.summary}")
    if differing := differing_settings(own.settings, theirs.settings):
        return not_comparable(f"{label}: other settings ({'; '.join(differing)})")
    own_ddp = session.known(cell.reference) if needs_ddp else own
    mine = _each(metric, own, own_ddp)
    others = _each(metric, theirs, theirs_ddp)
    if not mine or not others:
        return not_comparable(f"{label}: not measured {'there' if mine else 'here'}")
    if metric.is_speed:
        launched = (own, own_ddp, theirs, theirs_ddp)
        troubles = dict.fromkeys(trouble for one in launched for trouble in one.troubles)
        made = session.options.repeats
        confirmed = min(len(mine), len(others)) > made
        # What made somebody look again was chosen for what it says: it does not count.
        first = made if confirmed else 0
        pairs = [
            (a, b)
            for index, (a, b) in enumerate(zip(mine, others, strict=False))
            if index >= first and _at_one_speed(index, launched)
        ]
        confidence = CONFIRMING if confirmed else CONFIDENCE
        return _in_turn(cell, metric, pairs, "; ".join(troubles), label, confidence)
    entry = of_measurement(theirs, NOWHERE).metrics[metric.name]
    return replace(verdicts.judge(cell, metric, value, entry), against=label)


def _each(metric: Metric, own: Measurement, ddp: Measurement) -> Sequence[Value]:
    """The metric of every launch; of speedups launch by launch, so that DDP's spread is in them."""
    if metric.name == SPEEDUP_AT_MAX:
        found = speedup_at_max(ddp, own)
        return [] if found is None else [found]
    if metric.name == SPEEDUP:
        both = zip(ddp.each("epoch_seconds"), own.each("epoch_seconds"), strict=False)
        return [a / b for a, b in both if isinstance(a, float) and isinstance(b, float)]
    return own.each(metric.name)


def _at_one_speed(index: int, measurements: Sequence[Measurement]) -> bool:
    """Whether the machine was as fast for all of the launches with that number. Of cards NVML tells."""
    if measurements[0].cell.tier == "gpu":
        return True
    canaries = [
        one.launches[index].canary_seconds for one in measurements if index < len(one.launches)
    ]
    return not canaries or max(canaries) <= (1 + CANARY_LIMIT) * min(canaries)


def _in_turn(
    cell: Cell,
    metric: Metric,
    launched: Sequence[tuple[Value, Value]],
    troubles: str,
    label: str,
    confidence: float,
) -> Verdict:
    """Seconds, and what follows from them, of launches made in turn."""
    pairs = [(a, b) for a, b in launched if isinstance(a, float) and isinstance(b, float)]
    if not pairs:
        return Verdict(
            cell=cell, metric=metric.name, status="invalid", unit=metric.unit, against=label,
            note="seconds not judged: the machine's speed changed between the launches of each pair",
        )  # fmt: skip
    # Of rates the other way round: slower is then less.
    turned = [(b, a) if metric.better == "higher" else (a, b) for a, b in pairs]
    found = compare([a for a, _ in turned], [b for _, b in turned], confidence)
    status = STATUS[found.answer]
    note = f"{found.answer}: {found.ratio:.3f} times the seconds"
    if len(pairs) > 1:
        note += f", {found.low:.3f} to {found.high:.3f} with {confidence:.0%} confidence"
    if found.answer == "cannot tell":
        note += f"; {_remedy(metric, len(pairs), found.pairs_more)}"
    if troubles:
        status, note = "invalid", f"seconds not judged: {troubles}"
    mine_middle, other_middle = median([a for a, _ in pairs]), median([b for _, b in pairs])
    assert isinstance(mine_middle, float)
    assert isinstance(other_middle, float)
    return Verdict(
        cell=cell,
        metric=metric.name,
        status=status,
        unit=metric.unit,
        measured=mine_middle,
        expected=other_middle,
        change=verdicts.change_of(mine_middle, other_middle),
        tolerance=MARGIN,
        against=label,
        note=note,
    )


def _remedy(metric: Metric, made: int, more: int | None) -> str:
    if metric.budget is not None:
        return "a search for the largest batch is made once on each side"
    if more is None:
        return "more launches than anybody wants to make would be needed"
    return f"it would take --repeats {made + more}"
