"""Shared memory that ranks leave behind: whoever is killed cannot remove its own."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil

FOLDER = Path("/dev/shm")

OURS = ("torch_", "shm_allreduce", "nccl-", "psm_", "__KMP_REGISTERED_LIB_")
"""How torch, DeepSpeed, NCCL, Python's multiprocessing and OpenMP name theirs."""


def segments() -> set[Path]:
    """This user's segments of the kinds that ranks make."""
    found = set()
    with suppress(OSError):
        for path in FOLDER.iterdir():
            with suppress(OSError):
                if path.name.startswith(OURS) and path.stat().st_uid == os.getuid():
                    found.add(path)
    return found


def remove_left(before: set[Path]) -> list[Path]:
    """Remove the segments that are new since ``before`` and that no living process has mapped;
    those removed.
    """
    new = segments() - before
    if not new:
        return []
    used = _mapped()
    left = sorted(path for path in new if str(path) not in used)
    for path in left:
        path.unlink(missing_ok=True)
    return left


def _mapped() -> set[str]:
    """Files that some process of this user has mapped."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            found |= {region.path for region in process.memory_maps(grouped=True)}
    return found
