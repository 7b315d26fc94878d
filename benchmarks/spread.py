"""How much the launches of a cell differ, metric by metric, next to the limits that cards are held to.

python benchmarks/spread.py REPORT...   (a report folder, or its results.json)

Limits that come from measurements are set by this: run a cell with ``--repeats 3`` on a card, and a
limit should be well above the spread of launches that nothing distinguishes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerogate.metrics.aggregation import Value
from zerogate.metrics.measurement import median
from zerogate.metrics.table import Metric, metric_named


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How far apart a metric's launches are, and what its limit on cards allows at their median.

    ``metric`` has the limits on cards. Of a series it is the step that needs most of its limit.
    """

    metric: Metric
    median: float
    apart: float
    allowed: float
    step: int | None = None

    @property
    def relative(self) -> float | None:
        """``apart`` relative to the median; None if that is 0."""
        return self.apart / abs(self.median) if self.median else None

    @property
    def share(self) -> float:
        """The part of the limit that equal launches need: from 1 on they would regress."""
        if not self.apart:
            return 0.0
        return self.apart / self.allowed if self.allowed else float("inf")


def spread(metric: Metric, launches: Sequence[Value]) -> Spread:
    """Return how far ``launches`` of ``metric`` are apart, the largest from the smallest."""
    on_card = metric.on("gpu")
    middle = median(launches)
    if isinstance(middle, tuple):
        rows = zip(*(one for one in launches if isinstance(one, tuple)), strict=False)
        steps = [_of_numbers(on_card, row, step) for step, row in enumerate(rows)]
        return max(steps, key=lambda one: (one.share, one.apart))
    return _of_numbers(on_card, [one for one in launches if not isinstance(one, tuple)])


def _of_numbers(metric: Metric, numbers: Sequence[float], step: int | None = None) -> Spread:
    middle = median(numbers)
    assert isinstance(middle, int | float)
    allowed = max(metric.relative * abs(middle), metric.absolute)
    apart = max(numbers) - min(numbers)
    return Spread(metric=metric, median=middle, apart=apart, allowed=allowed, step=step)


def spreads(measurement: dict[str, Any]) -> Iterator[Spread]:
    """Yield the spreads of one measurement of results.json, metric by metric."""
    launches = [one["values"] for one in measurement["launches"]]
    for name in launches[0]:
        values = [
            tuple(one[name]) if isinstance(one[name], list) else one[name]
            for one in launches
            if one.get(name) is not None
        ]
        flat = [
            number
            for value in values
            for number in (value if isinstance(value, tuple) else [value])
        ]
        if len(values) < len(launches) or not flat or None in flat:
            continue  # Not finite, or not of every launch.
        try:
            metric = metric_named(name)
        except KeyError:
            continue  # A workload's own quality metric: its direction is not in the file.
        yield spread(metric, values)


def table(measurement: dict[str, Any]) -> str:
    """Return the spreads of one measurement as a table, those first that need most of their limit."""
    found = sorted(spreads(measurement), key=lambda one: (-one.share, one.metric.name))
    lines = [
        f"{measurement['cell']}: {len(measurement['launches'])} launches",
        f"{'metric':<30}{'median':>12}{'apart':>12}{'relative':>10}{'allowed':>12}{'of it':>7}  limit",
    ]
    for one in found:
        name = one.metric.name + (f" @{one.step}" if one.step is not None else "")
        relative = "-" if one.relative is None else f"{one.relative:.3%}"
        lines.append(
            f"{name:<30}{one.median:>12.6g}{one.apart:>12.4g}{relative:>10}{one.allowed:>12.4g}"
            f"{one.share:>7.0%}  {one.metric.relative:.3%} or {one.metric.absolute:g}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("report", type=Path, nargs="+", help="report folder, or its results.json")
    tables = []
    for path in parser.parse_args(arguments).report:
        file = path / "results.json" if path.is_dir() else path
        try:
            measurements = json.loads(file.read_text())["measurements"]
        except (OSError, ValueError, KeyError) as error:
            print(
                f"{file}: cannot be read ({error}); expected what --report-dir keeps",
                file=sys.stderr,
            )
            return 1
        tables += [table(one) for one in measurements if len(one["launches"]) > 1]
    if not tables:
        print("no cell has two launches or more; run it with --repeats 3", file=sys.stderr)
        return 1
    print("\n\n".join(tables))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
