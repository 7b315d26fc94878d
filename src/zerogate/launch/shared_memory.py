"""Shared memory that ranks leave behind: whoever is killed cannot remove its own."""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

FOLDER = Path("/dev/shm")

NAMED_BY_PID = re.compile(r"(?:torch|__KMP_REGISTERED_LIB)_(\d+)(?!\d)")
"""How torch and OpenMP name theirs. Others' names do not say whose they are: they stay."""


def remove_left(pids: Collection[int]) -> list[Path]:
    """Remove the segments of ``pids``, processes that have ended; those removed."""
    left = []
    with suppress(OSError):
        for path in sorted(FOLDER.iterdir()):
            owner = NAMED_BY_PID.match(path.name)
            if owner and int(owner[1]) in pids:
                path.unlink(missing_ok=True)
                left.append(path)
    return left
