"""``docs/steady.md``: how far each metric moved over runs of an unchanged stack."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from zerogate.metrics.table import METRICS

HEAD = """# No false alarms: the cpu matrix, {runs} times in a row

    tox run -e steady

writes this page. Nothing changes between the runs. Each run is judged by the committed baselines.
Machine and packages: {host}, {packages}.

| run | ok | regressed | errors | other verdicts | seconds |
|---|---|---|---|---|---|
{rows}

Other verdicts are, for example, INVALID: seconds that were not judged because the machine ran at
another speed than when the baseline was recorded.

## How far each metric moved

The last three columns are about the cell with the largest relative change over these runs; for a
metric that is measured at every step, about the step with the largest change. Portable metrics
should not change at all, unless they differed among the launches of their baseline.

| metric | unit | scope | cells | unchanged cells | largest change | relative | cell |
|---|---|---|---|---|---|---|---|
"""

Results = dict[str, Any]


@dataclass(frozen=True)
class Spread:
    """Of one metric in one cell: ``distance`` in the metric's unit, ``share`` of its median."""

    cell: str
    distance: float
    share: float


def page(runs: Sequence[tuple[Results, float]]) -> str:
    """The page from each run's results and seconds."""
    environment = runs[0][0]["environment"]
    head = HEAD.format(
        runs=len(runs),
        host=environment["host"],
        packages=", ".join(" ".join(one) for one in environment["packages"].items()),
        rows="\n".join(_run(*one) for one in enumerate(runs, 1)),
    )
    spreads = ((name, list(_spreads(name, [results for results, _ in runs]))) for name in METRICS)
    return head + "\n".join(_metric(name, found) for name, found in spreads if found) + "\n"


def _run(number: int, run: tuple[Results, float]) -> str:
    results, seconds = run
    statuses = [verdict["status"] for verdict in results["verdicts"]]
    ok, regressed = statuses.count("ok"), statuses.count("regressed")
    others = len(statuses) - ok - regressed
    return (
        f"| {number} | {ok} | {regressed} | {len(results['failures'])} | {others} | {seconds:.0f} |"
    )


def _spreads(name: str, runs: Sequence[Results]) -> Iterator[Spread]:
    values: dict[str, list[Any]] = {}
    for results in runs:
        for measurement in results["measurements"]:
            if name in measurement["values"]:
                values.setdefault(measurement["cell"], []).append(measurement["values"][name])
    for cell, measured in values.items():
        steps = zip(*measured, strict=True) if isinstance(measured[0], list) else [measured]
        yield max((_spread(cell, step) for step in steps), key=lambda one: one.distance)


def _spread(cell: str, values: Sequence[float]) -> Spread:
    distance = max(values) - min(values)
    middle = abs(statistics.median(values))
    return Spread(cell, distance, distance / middle if middle else 0.0)


def _metric(name: str, spreads: Sequence[Spread]) -> str:
    metric = METRICS[name]
    same = sum(1 for one in spreads if one.distance == 0)
    worst = max(spreads, key=lambda one: (one.share, one.distance))
    moved = ["0", "", ""]
    if worst.distance:
        moved = [f"{worst.distance:.4g}", f"{worst.share:.1%}", worst.cell]
    cells = [f"`{name}`", metric.unit, metric.scope, str(len(spreads)), str(same), *moved]
    return f"| {' | '.join(cells)} |"
