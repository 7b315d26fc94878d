"""``docs/faults.md``, made from what a run over all faults found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tests.faults.fault import WRONG_CONFIGURATION, Fault
from tests.faults.speed import TIME_ALONE
from zerogate.report.words import percent

if TYPE_CHECKING:
    from tests.faults.conftest import Results

HEAD = """# The suite can fail: planted faults

    tox run -e faults

writes this page. Each fault is planted in the stack inside the ranks, in the way of a bug that people
have met, and found by the suite's own run over `tests/regression`, without a clock. Measured and limit
are of the metric that must see it, under the first strategy named; others may see it as well. Wherever
there is a strategy that a fault should spare, it is planted there too, and leaves it green.

| fault | what goes wrong | real bug | planted under | caught by | measured | expected | limit |
|---|---|---|---|---|---|---|---|
"""

CLOCK = """
## What only a clock sees

Left out here: on a shared machine these are noise up to the limits of seconds (50 % and 0.5 s).

| fault | what goes wrong | real bug |
|---|---|---|
"""

SMALLEST = """
## The smallest visible change

From the limits that the same run judged by; where the limit is 0, one more is a regression.

| metric | smallest visible change | seen under |
|---|---|---|
"""


def page(faults: Iterable[Fault], results: Results) -> str:
    faults = list(faults)
    rows = [_row(fault, results) for fault in faults]
    clock = [f"| `{name}` | {what} | {_link(bug)} |" for name, (bug, what) in TIME_ALONE.items()]
    return (
        HEAD + "\n".join(rows) + "\n" + CLOCK + "\n".join(clock) + "\n" + SMALLEST
        + "\n".join(_smallest(faults, results)) + "\n"
    )  # fmt: skip


def _row(fault: Fault, results: Results) -> str:
    first = fault.on[0]
    cells = [f"`{fault.name}`", fault.what, _link(fault.bug), ", ".join(fault.on)]
    if fault.caught_by == WRONG_CONFIGURATION:
        said = results.failure(first, fault)["summary"].partition("configuration not applied: ")[2]
        return _line(*cells, "ranks refuse", said.partition(";")[0].replace("|", "\\|"), "", "")
    found = results.regressed(first, fault)[fault.caught_by]
    limit = found["tolerance"]
    return _line(
        *cells,
        f"`{fault.caught_by}`",
        _number(found["measured"]),
        _number(found["expected"]),
        f"{limit:.1%}" if limit else "0",
    )


def _smallest(faults: Iterable[Fault], results: Results) -> list[str]:
    """A row for each metric with a baseline, from a cell that a fault spared."""
    seen: dict[str, str] = {}
    for fault in faults:
        for strategy in fault.spares:
            for verdict in results.verdicts(strategy, fault):
                if verdict["against"] == "baseline" and verdict["status"] == "ok":
                    name = verdict["metric"]
                    change = f"1 {_one(verdict['unit'])}"
                    if verdict["tolerance"]:
                        change = percent(verdict["tolerance"]).lstrip("+")
                    seen.setdefault(name, f"| `{name}` | {change} | {strategy} |")
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
