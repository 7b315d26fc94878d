"""zerogate: a regression suite for sharded training, as a pytest plugin.

Workload files import what they need from here: ``from zerogate import Quality, Recipe, Workload``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zerogate.protocol.cell import Tier
    from zerogate.protocol.record import Recipe
    from zerogate.worker.dataset_files import read_split, split_files
    from zerogate.worker.workload import Batch, Quality, Workload

__version__ = "0.1.0"

__all__ = ["Batch", "Quality", "Recipe", "Tier", "Workload", "read_split", "split_files"]

_MODULES = {
    "Batch": "zerogate.worker.workload",
    "Quality": "zerogate.worker.workload",
    "Recipe": "zerogate.protocol.record",
    "Tier": "zerogate.protocol.cell",
    "Workload": "zerogate.worker.workload",
    "read_split": "zerogate.worker.dataset_files",
    "split_files": "zerogate.worker.dataset_files",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: the controller imports nothing of ``worker``."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
