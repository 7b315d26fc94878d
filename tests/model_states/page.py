"""The tables of ``docs/model-states.md``; the text before them is written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zerogate.metrics.model_states import StateBytes

TABLES = "<!-- below: written by tox run -e model-states -->"
SMALL = 0.05
"""Bytes a parameter: owners with less are summed."""

TITLES = (
    "strategy",
    "paper device",
    "measured device",
    "held by",
    "paper host",
    "measured host",
    "held by",
)


@dataclass(frozen=True)
class Row:
    """Bytes a parameter of one cell: by the papers, and measured by owner on device and host.

    Those ``outside`` are on the host too, but torch does not know of them.
    """

    workload: str
    strategy: str
    paper: StateBytes
    device: Mapping[str, float]
    host: Mapping[str, float]
    outside: Mapping[str, float]


def page(head: str, rows: Sequence[Row]) -> str:
    parts = [head + TABLES]
    for workload in dict.fromkeys(row.workload for row in rows):
        lines = [f"## {workload}", "", _cells(TITLES), "|---" * len(TITLES) + "|"]
        lines += [_line(row) for row in rows if row.workload == workload]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _line(row: Row) -> str:
    places = ((row.paper.device, row.device), (row.paper.host, row.host))
    cells = [row.strategy]
    for paper, held in places:
        cells += [f"{paper:g}", f"{sum(held.values()):.2f}", _holders(held)]
    beside = [f"outside torch: {name} {size:.2f}" for name, size in row.outside.items() if size]
    return _cells([*cells[:-1], "; ".join([cells[-1], *beside])])


def _holders(held: Mapping[str, float]) -> str:
    """The owners, the largest first."""
    largest = sorted(held.items(), key=lambda one: -one[1])
    shown = [f"{name} {size:.2f}" for name, size in largest if size >= SMALL]
    small = sum(size for _, size in largest if size < SMALL)
    if small:
        shown.append(f"others {small:.2f}")
    return ", ".join(shown)


def _cells(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"
