"""Verdicts on a cell against the same cell in another environment of this session. Pure functions.

Exact metrics are compared as with a baseline. Seconds are compared launch by launch, in the order in
which both environments were launched, so that the machine's speed on another day has no part in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

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
from zerogate.verdicts.baselines import Provenance, of_measurement
from zerogate.verdicts.comparability import CANARY_LIMIT, device_conditions, missing_device_peak
from zerogate.verdicts.evidence import SPEEDUPS, Evidence, OtherEnvironment
from zerogate.verdicts.paired_test import CONFIDENCE, CONFIRMING, MARGIN, compare_pairs
from zerogate.verdicts.verdict import Status, Verdict, change_of, compare

STATUS: dict[str, Status] = {"slower": "regressed", "not slower": "ok", "cannot tell": "invalid"}

NOT_STORED = Provenance(
    recorded="", commit="", reason="", hardware="", canary_seconds=1.0, software={}
)
"""Provenance of a baseline that exists only while this session compares with it."""


def judge_against_environment(
    evidence: Evidence, other: OtherEnvironment, metric: Metric
) -> Verdict:
    """Compare the measured value with that of the same cell in ``other``."""
    own, cell = evidence.own, evidence.cell

    def no_verdict(status: Status, why: str) -> Verdict:
        return Verdict(
            cell=cell, metric=metric.name, status=status, unit=metric.unit,
            against=other.name, note=why,
        )  # fmt: skip

    value = evidence.value(metric)
    for status, why in _reasons(evidence, other, metric):
        if why:
            return no_verdict(status, why)
    assert value is not None
    assert other.own is not None
    ours = _each(metric, own, evidence.reference)
    theirs = _each(metric, other.own, other.reference)
    if not ours or not theirs:
        where = "there" if ours else "here"
        return no_verdict("not_comparable", f"{other.name}: not measured {where}")
    if metric.is_speed:
        return _judge_seconds(evidence, other, metric, ours, theirs)
    entry = of_measurement(other.own, NOT_STORED).metrics[metric.name]
    return replace(compare(cell, metric, value, entry), against=other.name)


def _reasons(
    evidence: Evidence, other: OtherEnvironment, metric: Metric
) -> Iterator[tuple[Status, str]]:
    """Yield a status and a reason (or "") for all that prevents a comparison; the first counts."""
    own = evidence.own
    yield "invalid", missing_device_peak(own, (), metric)
    yield "not_comparable", "not measured here" if evidence.value(metric) is None else ""
    if other.failure or other.own is None:
        yield "not_comparable", f"{other.name}: {other.failure}"
        return
    why = missing_device_peak(other.own, (), metric)
    yield "invalid", f"{other.name}: {why}" if why else ""
    differing = "; ".join(differing_settings(own.settings, other.own.settings))
    yield "not_comparable", f"{other.name}: other settings ({differing})" if differing else ""


def _each(metric: Metric, own: Measurement, reference: Measurement | None) -> Sequence[Value]:
    """Return the metric of every launch.

    A speedup is taken launch by launch, so that its spread includes the reference's.
    """
    if metric.name not in SPEEDUPS:
        return own.each(metric.name)
    if reference is None:
        return []
    if metric.name == SPEEDUP_AT_MAX:
        found = speedup_at_max(reference, own)
        return [] if found is None else [found]
    assert metric.name == SPEEDUP
    both = zip(reference.each("epoch_seconds"), own.each("epoch_seconds"), strict=False)
    return [a / b for a, b in both if isinstance(a, float) and isinstance(b, float)]


def _judge_seconds(
    evidence: Evidence,
    other: OtherEnvironment,
    metric: Metric,
    ours: Sequence[Value],
    theirs: Sequence[Value],
) -> Verdict:
    """Judge seconds, or a rate, by the launches that both environments made in turn."""
    needs_reference = metric.name in SPEEDUPS
    launched = [one for one in (evidence.own, other.own) if one is not None]
    if needs_reference:
        launched += [one for one in (evidence.reference, other.reference) if one is not None]
    reasons = dict.fromkeys(reason for one in launched for reason in device_conditions(one))
    confirmed = min(len(ours), len(theirs)) > other.repeats
    # The first launches were selected because they seemed slow, so that they confirm nothing.
    first = other.repeats if confirmed else 0
    pairs = [
        (a, b)
        for index, (a, b) in enumerate(zip(ours, theirs, strict=False))
        if index >= first and _at_one_speed(index, launched)
        if isinstance(a, float) and isinstance(b, float)
    ]
    if not pairs:
        return Verdict(
            cell=evidence.cell, metric=metric.name, status="invalid", unit=metric.unit,
            against=other.name,
            note="seconds not judged: the machine's speed changed between the launches of each pair",
        )  # fmt: skip
    confidence = CONFIRMING if confirmed else CONFIDENCE
    status, note = _answer(metric, pairs, confidence)
    if reasons:
        status, note = "invalid", f"seconds not judged: {'; '.join(reasons)}"
    measured, expected = median([a for a, _ in pairs]), median([b for _, b in pairs])
    assert isinstance(measured, float)
    assert isinstance(expected, float)
    return Verdict(
        cell=evidence.cell,
        metric=metric.name,
        status=status,
        unit=metric.unit,
        measured=measured,
        expected=expected,
        change=change_of(measured, expected),
        tolerance=MARGIN,
        against=other.name,
        note=note,
    )


def _answer(
    metric: Metric, pairs: Sequence[tuple[float, float]], confidence: float
) -> tuple[Status, str]:
    """Return the status that the pairs show, and a sentence on it."""
    # Rates are compared the other way round: a slower launch has the smaller rate.
    slower_first = [(b, a) if metric.better == "higher" else (a, b) for a, b in pairs]
    found = compare_pairs([a for a, _ in slower_first], [b for _, b in slower_first], confidence)
    note = f"{found.answer}: {found.ratio:.3f} times the seconds"
    if len(pairs) > 1:
        note += f", {found.low:.3f} to {found.high:.3f} with {confidence:.0%} confidence"
    if found.answer == "cannot tell":
        note += f"; {_remedy(metric, len(pairs), found.pairs_more)}"
    return STATUS[found.answer], note


def _at_one_speed(index: int, measurements: Sequence[Measurement]) -> bool:
    """Return whether the machine was equally fast in all launches of number ``index``.

    Always true on cards, whose speed is read through NVML.
    """
    if measurements[0].cell.tier == "gpu":
        return True
    canaries = [
        one.launches[index].canary_seconds for one in measurements if index < len(one.launches)
    ]
    return not canaries or max(canaries) <= (1 + CANARY_LIMIT) * min(canaries)


def _remedy(metric: Metric, made: int, more: int | None) -> str:
    if metric.budget is not None:
        return "a search for the largest batch is made once on each side"
    if more is None:
        return "more launches than anybody wants to make would be needed"
    return f"it would take --repeats {made + more}"
