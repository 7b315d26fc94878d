"""Trials that the tests of releases judge."""

from __future__ import annotations

from typing import Any

from zerogate.releases.evaluation import Evaluation

CELL = "gpt2xl_wikitext2-zero2-w2-cpu"


def evaluation(*packages: str, norm: float = 1.5, live: int = 1000, **changes: Any) -> Evaluation:
    values = {CELL: {"gradient_norm": (2.0, norm), "live_bytes": live}}
    return Evaluation(**({"packages": packages, "values": values} | changes))
