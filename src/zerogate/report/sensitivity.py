"""The smallest change that a session would have seen, by the limits that it judged by."""

from __future__ import annotations

from collections.abc import Iterable

from zerogate.metric import METRICS
from zerogate.report.words import percent
from zerogate.verdict import Verdict


def smallest_visible(verdicts: Iterable[Verdict]) -> str:
    """One sentence: the units of which one more is seen, and the other metrics with their limits,
    the widest where cells differ; empty where nothing was held to a baseline.
    """
    units: set[str] = set()
    limits: dict[str, float] = {}
    for verdict in verdicts:
        if verdict.against != "baseline" or verdict.tolerance is None:
            continue
        if verdict.status not in ("ok", "improved", "regressed") or verdict.unit == "steps":
            continue
        if verdict.tolerance == 0 and verdict.unit:
            units.add(verdict.unit.removesuffix("s"))
        elif verdict.metric in METRICS:
            title = METRICS[verdict.metric].title
            limits[title] = max(limits.get(title, 0.0), verdict.tolerance)
    exact = [f"one {' or '.join(sorted(units))}"] if units else []
    coarse = [f"{title} {percent(limits[title]).lstrip('+')}" for title in sorted(limits)]
    return ", ".join([*exact, *coarse])
