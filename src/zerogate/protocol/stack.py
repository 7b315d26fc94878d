"""The packages under test."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence

STACK = ("torch", "accelerate", "deepspeed", "transformers", "datasets", "evaluate")
"""Packages that ranks import; each name is that of the distribution and of the module."""

SHARING_NCCL = (2, 30)
"""First NCCL release that lets ranks share a device; before it, gloo moves tensors via the host."""


def installed_version(name: str, path: Sequence[str] | None = None) -> str | None:
    """Return the installed version of a distribution; None where it is not installed.

    ``path`` are the folders to look in, the first one first; ``sys.path`` where it is None.
    """
    folders = sys.path if path is None else list(path)
    found = next(iter(importlib.metadata.distributions(name=name, path=folders)), None)
    return found.version if found is not None else None
