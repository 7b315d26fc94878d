"""``docs/faults.md``, made from what a run over all faults found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tests.faults.fault import ALL_SPARED, MIXED_DEVICES, WRONG_CONFIGURATION, Fault, Spared
from tests.faults.speed import TIME_ALONE
from zerogate.report.formatting import percent

if TYPE_CHECKING:
    from tests.faults.conftest import Results

HEAD = """# The suite can fail: planted faults

    tox run -e faults

writes this page. Each fault is planted in the stack, inside the ranks, and mimics a bug that people
have met. The suite in `src/zerogate/suite` must find it without a clock. "Caught by" is the metric
that must show the fault. "Measured", "expected" and "limit" are that metric's, under the first
strategy named. Other metrics may show the fault too.

| fault | what goes wrong | real bug | planted under | caught by | measured | expected | limit |
|---|---|---|---|---|---|---|---|
"""

SPARED = """
## What stays green

Each strategy below was trained with all the faults that must not affect it, planted at once.
Nothing regressed.

| workload | strategy | faults |
|---|---|---|
"""

CLOCK = """
## What only a clock sees

These faults are not planted here. On a shared machine they are smaller than the limits of seconds
(50 % or 0.5 s, whichever is more).

| fault | what goes wrong | real bug |
|---|---|---|
"""

SMALLEST = """
## The smallest visible change

These are the limits that the same run judged by. If the limit is 0, one more is a regression.

| metric | smallest visible change | seen under |
|---|---|---|
"""


def page(faults: Iterable[Fault], spared: Iterable[Spared], results: Results) -> str:
    spared = list(spared)
    rows = [_row(fault, results) for fault in faults]
    clock = [f"| `{name}` | {what} | {_link(bug)} |" for name, (bug, what) in TIME_ALONE.items()]
    return (
        HEAD + "\n".join(rows) + "\n" + SPARED + "\n".join(map(_spared, spared)) + "\n"
        + CLOCK + "\n".join(clock) + "\n"
        + SMALLEST + "\n".join(_smallest(spared, results)) + "\n"
    )  # fmt: skip


def _row(fault: Fault, results: Results) -> str:
    first = fault.on[0]
    cells = [f"`{fault.name}`", fault.what, _link(fault.bug), ", ".join(fault.on)]
    if fault.caught_by == WRONG_CONFIGURATION:
        said = results.failure(first, fault.name)["summary"].partition(
            "configuration not applied: "
        )[2]
        return _line(*cells, "ranks refuse", said.partition(";")[0].replace("|", "\\|"), "", "")
    if fault.caught_by == MIXED_DEVICES:
        return _line(*cells, "ranks crash", MIXED_DEVICES, "", "")
    found = results.regressed(first, fault.name)[fault.caught_by]
    limit = found["tolerance"]
    return _line(
        *cells,
        f"`{fault.caught_by}`",
        _number(found["measured"]),
        _number(found["expected"]),
        f"{limit:.1%}" if limit else "0",
    )


def _spared(one: Spared) -> str:
    return _line(one.workload, one.strategy, ", ".join(f"`{fault.name}`" for fault in one.faults))


def _smallest(spared: Iterable[Spared], results: Results) -> list[str]:
    """A row for each metric with a baseline, from a cell that faults spared."""
    seen: dict[str, str] = {}
    for one in spared:
        for verdict in results.verdicts(one.strategy, ALL_SPARED):
            if verdict["against"] == "baseline" and verdict["status"] == "ok":
                name = verdict["metric"]
                change = f"1 {_one(verdict['unit'])}"
                if verdict["tolerance"]:
                    change = percent(verdict["tolerance"]).lstrip("+")
                seen.setdefault(name, f"| `{name}` | {change} | {one.strategy} |")
    return sorted(seen.values())


def _one(unit: str) -> str:
    return unit.removesuffix("s")


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _link(bug: str) -> str:
    repository, _, number = bug.partition("#")
    return f"[{bug}](https://github.com/{repository}/issues/{number})"


def _number(value: Any) -> str:
    if value is None:
        return "not a number"
    return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"
