"""Linux settings of a process about its parent and its orphans (man 2 prctl)."""

from __future__ import annotations

import ctypes

_LIBC = ctypes.CDLL(None)
"""Loaded with this module: a child between fork and exec cannot load it."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def signal_at_parent_death(number: int) -> None:
    """Make the kernel send signal ``number`` to this process when its parent thread ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def adopt_orphans() -> None:
    """Make this process, not init, the parent of descendants whose own parent has ended."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
