"""Metrics: `evaluate` modules that lie in ``metrics/``."""

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
    """The `evaluate` module ``metrics/<name>/<name>.py``, loaded once a process.

    Every rank scores all samples by itself, so nothing may be shared between them: results stay in
    memory, and the name of the experiment (of its lock files) is the process's own.
    """
    import evaluate

    return evaluate.load(
        str(METRICS / name), keep_in_memory=True, experiment_id=f"{name}-{os.getpid()}"
    )
