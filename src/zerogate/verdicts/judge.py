"""The verdict on one metric of a cell, from the evidence that it rests on. Pure functions."""

from __future__ import annotations

from dataclasses import replace

from zerogate.metrics.batch_size import SIZE
from zerogate.metrics.measurement import AT_MAX, SPEEDUP, SPEEDUP_AT_MAX
from zerogate.metrics.table import Metric, metric_named
from zerogate.verdicts.against_environment import judge_against_environment
from zerogate.verdicts.baselines import MetricBaseline
from zerogate.verdicts.comparability import comparability, missing_device_peak
from zerogate.verdicts.evidence import Evidence
from zerogate.verdicts.reference_results import ReferenceResults
from zerogate.verdicts.verdict import Verdict, compare

CONFIRMING_LAUNCHES = 3
"""A regression that one launch cannot prove is judged by the median of this many launches."""


def judge_metric(evidence: Evidence, metric: Metric) -> Verdict:
    """Return the verdict on one metric.

    The value is compared with the other environment if there is one, and with the baseline otherwise.
    """
    if evidence.other is not None:
        return judge_against_environment(evidence, evidence.other, metric)
    return judge_against_baseline(evidence, metric)


def judge_against_baseline(evidence: Evidence, metric: Metric) -> Verdict:
    """Compare the measured value with the baseline, if the two are comparable."""
    own, baseline = evidence.own, evidence.baseline
    value = evidence.value(metric)
    if why := missing_device_peak(own, baseline.metrics if baseline else (), metric):
        return Verdict(
            cell=own.cell, metric=metric.name, status="invalid", unit=metric.unit, note=why
        )
    if value is None:
        note = own.notes.get(metric.name, "not measured here")
        if metric.name == SPEEDUP_AT_MAX and AT_MAX in own.searched:
            note = "DDP does not fit even one sample: there is nothing to be faster than"
        return Verdict(
            cell=own.cell, metric=metric.name, status="not_comparable", unit=metric.unit, note=note
        )
    entry = baseline.metrics.get(metric.name) if baseline else None
    found = compare(own.cell, metric, value, entry)
    if note := _both_numbers(evidence, metric):
        found = replace(found, note=note)
    if baseline is None or found.status == "no_baseline":
        return found
    status, why = comparability(evidence, baseline, metric)
    return replace(found, status=status, note=why) if why else found


def compare_with_reference(evidence: Evidence, name: str, results: ReferenceResults) -> Verdict:
    """Compare a metric with what others published of the cell; it holds on their hardware only."""
    metric = metric_named(name)
    value = results.values(evidence.cell)[name]
    entry = MetricBaseline(value=value, spread=0.0, launches=(value,))
    found = compare(evidence.cell, metric, evidence.own.value(name), entry)
    if results.hardware != evidence.hardware:
        why = f"published for {results.hardware}, this is {evidence.hardware}"
        found = replace(found, status="not_comparable", note=why)
    return replace(found, metric=f"{name}_published", against="published")


def needs_confirmation(verdict: Verdict, metric: Metric) -> bool:
    """Return whether more launches have to agree before a regression counts.

    One launch proves nothing about a number that differs from launch to launch: seconds and what else
    depends on the hardware, and on cards every metric but the bytes of the launch that certifies a
    batch size. The size itself is searched once more there.
    """
    varies_on_cards = metric.budget is None or metric.name in SIZE.values()
    varies = metric.scope == "hardware" or (verdict.cell.tier == "gpu" and varies_on_cards)
    return verdict.status == "regressed" and varies


def _both_numbers(evidence: Evidence, metric: Metric) -> str:
    """Return both numbers of a speedup, so that a slower DDP does not look like a faster strategy.

    Empty for any other metric.
    """
    own, reference = evidence.own, evidence.reference
    if reference is None:
        return ""
    if metric.name == SPEEDUP:
        name = "epoch_seconds"
        return f"DDP {reference.scalar(name):.2f} s an epoch, this {own.scalar(name):.2f} s"
    if metric.name == SPEEDUP_AT_MAX:
        theirs, ours = (
            f"{one.scalar(AT_MAX):.1f} samples/s at {one.value('max_micro_batch_size')}"
            for one in (reference, own)
        )
        return f"DDP {theirs}, this {ours}"
    return ""
