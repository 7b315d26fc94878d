"""Trials that the tests of releases judge."""

from __future__ import annotations

from typing import Any

from zerogate.releases.evaluation import Trial

CELL = "gpt2xl_wikitext2-zero2-w2-cpu"


def trial(*packages: str, norm: float = 1.5, live: int = 1000, **changes: Any) -> Trial:
    values = {CELL: {"gradient_norm": (2.0, norm), "live_bytes": live}}
    return Trial(**({"packages": packages, "values": values} | changes))
