"""The tables of ``docs/model-states.md``; the text before them is written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TABLES = "<!-- below: written by tox run -e model-states -->"
SMALL = 0.05
"""Bytes a parameter: owners with less are summed."""


@dataclass(frozen=True)
class Row:
    """Bytes a parameter of one cell: by the paper, and measured by owner."""

    workload: str
    strategy: str
    paper: float
    by_owner: dict[str, float]


def page(head: str, rows: Sequence[Row]) -> str:
    parts = [head + TABLES]
    for workload in dict.fromkeys(row.workload for row in rows):
        lines = [
            f"## {workload}",
            "",
            "| strategy | paper | measured | held by |",
            "|---|---|---|---|",
        ]
        lines += [_line(row) for row in rows if row.workload == workload]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _line(row: Row) -> str:
    largest = sorted(row.by_owner.items(), key=lambda one: -one[1])
    shown = [f"{name} {size:.2f}" for name, size in largest if size >= SMALL]
    small = sum(size for _, size in largest if size < SMALL)
    if small:
        shown.append(f"others {small:.2f}")
    cells = [row.strategy, f"{row.paper:g}", f"{sum(row.by_owner.values()):.2f}", ", ".join(shown)]
    return f"| {' | '.join(cells)} |"
