"""Metrics: the `evaluate` modules in ``metrics/``."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluate import EvaluationModule

METRICS = Path(__file__).parent.parent / "metrics"


@cache
def load_metric(name: str) -> EvaluationModule:
    """Return the `evaluate` module ``metrics/<name>/<name>.py``, loaded once a process.

    Every rank scores all samples by itself, so ranks may share nothing: results stay in memory, and
    each process has its own experiment id, which names the lock files.
    """
    import evaluate

    return evaluate.load(
        str(METRICS / name), keep_in_memory=True, experiment_id=f"{name}-{os.getpid()}"
    )
