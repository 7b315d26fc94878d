"""What memory this process may still have on its host, and whom the kernel killed for want of it: on
the machine, and in the control groups that a container, a scheduler or systemd put it into.
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
"""Its bit (Linux's include/uapi/linux/capability.h)."""

LIMITS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""A group's limit, its use, and what of that is given back when asked (in memory.stat), by version
(Linux's Documentation/admin-guide, cgroup-v2 and cgroup-v1/memory); the second one first.
"""
KILLED = ("memory.events", "memory.oom_control")


def available_memory_bytes() -> int:
    """What processes can still have: of the machine, or of a group they are in where that is less."""
    limits = (_left(group, *names) for group in (*_memory_groups(), GROUPS) for names in LIMITS)
    machine = psutil.virtual_memory().available
    return min([machine, *(left for left in limits if left is not None)])


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory: in this process's own group, or,
    where that is not counted, on this machine.
    """
    counters = [group / name for group in (*_memory_groups(), GROUPS) for name in KILLED]
    for path in (*counters, MACHINE):
        try:
            return _counted(path)["oom_kill"]
        except (OSError, ValueError, KeyError):
            continue
    return 0


def may_lock_bytes() -> int | None:
    """Bytes of memory that a process may keep from being swapped out; None where there is no limit, or
    none for who may lock any (CAP_IPC_LOCK).
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
    """Folders of the groups that count this process's memory, from its own to the one around all. In a
    container it may be told the host's path, and only the last is there.
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
    """Bytes that a group may still have; None where it has no limit ("max"), or does not tell."""
    try:
        left = int((group / limit).read_text()) - int((group / used).read_text())
    except (OSError, ValueError):
        return None
    with suppress(OSError, ValueError, KeyError):
        left += _counted(group / "memory.stat")[given_back]
    return max(0, left)


def _counted(path: Path) -> dict[str, int]:
    """A file of names and numbers."""
    pairs = (line.split() for line in path.read_text().splitlines())
    return {name: int(number) for name, number in pairs}
