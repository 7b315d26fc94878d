"""Published values beside what was measured."""

from __future__ import annotations

from collections.abc import Iterable

from zerogate.cell import Cell
from zerogate.published import Published

TITLES = {
    "max_micro_batch_size": "batch",
    "max_eval_batch_size": "eval batch",
    "epoch_seconds": "s/epoch",
    "eval_seconds": "s eval",
    "f1": "F1",
    "accuracy": "accuracy",
}


def published_lines(found: Published, cells: Iterable[Cell], hardware: str) -> list[str]:
    """A line for each of ``cells`` that ``found`` has values for, under where they hold."""
    rows = [
        f"  {cell.strategy}: {_values(values)}" for cell in cells if (values := found.values(cell))
    ]
    if not rows:
        return []
    note = "" if found.hardware == hardware else f"; not comparable: this is {hardware}"
    return [f"published for {found.hardware}{note}", *rows]


def _values(values: dict[str, int | float]) -> str:
    if values.get("max_micro_batch_size") == 0:
        return "OOM at 1"
    return ", ".join(
        f"{title} {values[name]:g}" for name, title in TITLES.items() if name in values
    )
