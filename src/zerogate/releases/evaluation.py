"""The evaluation of a set of packages, and the changes between two evaluations. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from zerogate.metrics.table import metric_named
from zerogate.protocol.cell import parse_cell
from zerogate.protocol.record import STRICT, Strict
from zerogate.verdicts.baselines import MetricBaseline
from zerogate.verdicts.verdict import compare


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The evaluation of ``packages`` (requirements), under ``fingerprint`` with ``software``.

    ``values`` are the portable metrics of each cell that ran. ``failures`` has the first line of
    the error of each cell that failed, and ``absent`` why this machine cannot run a cell at all.
    ``invalid`` is the message of pip or Python if nothing could be launched.
    """

    __pydantic_config__: ClassVar[Strict] = STRICT

    packages: tuple[str, ...]
    fingerprint: dict[str, str] = field(default_factory=dict)
    software: dict[str, str] = field(default_factory=dict)
    invalid: str = ""
    values: dict[str, dict[str, int | float | tuple[float, ...]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    quality_better: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a metric. For a series, ``was`` and ``now`` are the values at ``step``."""

    cell: str
    metric: str
    was: float | None
    now: float | None
    step: int | None
    worse: bool


def changes(reference: Evaluation, own: Evaluation) -> list[Change]:
    """Return the changes from ``reference`` to ``own``, by the limits that baselines have."""
    found = []
    for name, values in own.values.items():
        before = reference.values.get(name, {})
        if before:  # Both have the same meters, so a missing metric is a change.
            found += [Change(name, one, None, None, None, True) for one in {*before} ^ {*values}]
        for metric_name, value in values.items():
            if metric_name not in before:
                continue
            metric = metric_named(metric_name, own.quality_better.get(name))
            was = before[metric_name]
            entry = MetricBaseline(value=was, spread=0.0, launches=(was,))
            verdict = compare(parse_cell(name), metric, value, entry)
            if verdict.status in ("regressed", "improved"):
                worse = verdict.status == "regressed"
                found.append(
                    Change(
                        name, metric_name, verdict.expected, verdict.measured, verdict.step, worse
                    )
                )
    return found


def number(value: float | None) -> str:
    """Return a measured number as text for a table."""
    if value is None:
        return "not a number"
    return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"
