"""Values that others published, shown beside what was measured; never judged against it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TITLES = {
    "max_micro_batch_size": "batch",
    "max_eval_batch_size": "eval batch",
    "epoch_seconds": "s/epoch",
    "eval_seconds": "s eval",
    "f1": "F1",
    "accuracy": "accuracy",
}


def published(folder: Path, workload: str, strategies: Iterable[str], hardware: str) -> list[str]:
    """Lines on what ``folder``'s files say of ``workload`` under ``strategies``, the source first.

    They hold on their own hardware alone, and say so where this is another.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        content: dict[str, Any] = json.loads(path.read_text())
        values = content["workloads"].get(workload, {})
        rows = [f"  {name}: {_values(values[name])}" for name in strategies if name in values]
        if rows:
            where = content["hardware"]
            note = "" if where == hardware else f"; not comparable: this is {hardware}"
            found += [f"published for {where}{note}", *rows]
    return found


def _values(values: dict[str, float]) -> str:
    if values.get("max_micro_batch_size") == 0:
        return "OOM at 1"
    return ", ".join(
        f"{title} {values[name]:g}" for name, title in TITLES.items() if name in values
    )
