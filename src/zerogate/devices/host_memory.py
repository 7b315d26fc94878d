"""Host memory that this process may still use, and processes that the kernel killed for lack of it.

Both are read for the machine and for the control groups that a container, a scheduler or systemd
put this process into.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
MACHINE = Path("/proc/vmstat")
STATUS = Path("/proc/self/status")
CAP_IPC_LOCK = 14
"""Bit number of the capability (Linux's include/uapi/linux/capability.h)."""

LIMITS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Files with a group's limit and its use, and the field of memory.stat that the kernel can reclaim:
for cgroup v2, then for v1 (Linux's Documentation/admin-guide, cgroup-v2 and cgroup-v1/memory).
"""
KILLED = ("memory.events", "memory.oom_control")


def available_memory_bytes() -> int:
    """Return the bytes still available: the machine's, or a control group's if that is less."""
    limits = (_left(group, *names) for group in (*_memory_groups(), GROUPS) for names in LIMITS)
    machine = psutil.virtual_memory().available
    return min([machine, *(left for left in limits if left is not None)])


def oom_kills() -> int:
    """Return how many processes the kernel has killed for lack of memory.

    Counts this process's own control group, or the machine if the group has no counter.
    """
    counters = [group / name for group in (*_memory_groups(), GROUPS) for name in KILLED]
    for path in (*counters, MACHINE):
        try:
            return _counted(path)["oom_kill"]
        except (OSError, ValueError, KeyError):
            continue
    return 0


def may_lock_bytes() -> int | None:
    """Return how many bytes of memory this process may lock (``mlock``).

    None if there is no limit, or if the process may ignore it (CAP_IPC_LOCK).
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit == resource.RLIM_INFINITY:
        return None
    with suppress(OSError, ValueError, KeyError):
        lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        if int(lines["CapEff"], 16) & 1 << CAP_IPC_LOCK:
            return None
    return limit


def _memory_groups() -> Iterator[Path]:
    """Yield the folders of the groups that count this process's memory, from its own to the root.

    In a container the kernel may report the host's path; then only the root exists.
    """
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, named = line.partition(":")
        controllers, _, path = named.partition(":")
        if not path or (controllers and "memory" not in controllers.split(",")):
            continue
        around = GROUPS / "memory" if controllers else GROUPS
        own = around / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(around))


def _left(group: Path, limit: str, used: str, given_back: str) -> int | None:
    """Return the bytes that a group may still use; None if it has no limit ("max") or no such file."""
    try:
        left = int((group / limit).read_text()) - int((group / used).read_text())
    except (OSError, ValueError):
        return None
    with suppress(OSError, ValueError, KeyError):
        left += _counted(group / "memory.stat")[given_back]
    return max(0, left)


def _counted(path: Path) -> dict[str, int]:
    """Return the numbers in a file that has a name and a number on each line."""
    pairs = (line.split() for line in path.read_text().splitlines())
    return {name: int(number) for name, number in pairs}
