"""Whether a full-size cell that offloads has the room for it: host memory, and disk.

A host that runs out of memory takes whatever the kernel picks with it, so this is asked beforehand.
"""

from __future__ import annotations

import ast
import shutil
from dataclasses import dataclass
from pathlib import Path

from zerogate.devices.host import available_memory_bytes
from zerogate.strategy import Strategy

GIB = 2**30
OPTIMIZER_BYTES = 16
"""A parameter's master copy, two Adam moments and gradient, in fp32 (ZeRO paper, arXiv 1910.02054,
section 3.1; ZeRO-Offload, arXiv 2101.06840, section 3): what offloading the optimizer moves."""

PARAMETER_BYTES = 2
"""A parameter in fp16: what offloading parameters moves."""

BUILT_BYTES = 4
"""A parameter in fp32, in the model that each rank builds on the host before it is sharded."""


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes of host memory and of disk, of all ranks together."""

    host_bytes: int
    disk_bytes: int


def needed(parameters: int, strategy: Strategy, world_size: int) -> Room:
    """What a full-size model of so many parameters takes under ``strategy``, at least: all of it is
    there at once when the engine has taken over the last rank's states.
    """
    places = {"none": 0, "cpu": 0, "nvme": 0}
    places[strategy.offload_optimizer] += OPTIMIZER_BYTES * parameters
    places[strategy.offload_param] += PARAMETER_BYTES * parameters
    built = BUILT_BYTES * parameters * world_size
    return Room(host_bytes=places["cpu"] + built, disk_bytes=places["nvme"])


def shortage(workload_file: Path, strategy: Strategy, world_size: int, folder: Path) -> str:
    """Why this machine has no room for the cell, with the numbers; empty where it has, and where the
    workload does not say how large it is. ``folder`` is where disk offload goes.
    """
    parameters = full_parameters(workload_file)
    if parameters is None:
        return ""
    room = needed(parameters, strategy, world_size)
    host, disk = available_memory_bytes(), shutil.disk_usage(folder).free
    if host < room.host_bytes:
        return (
            f"needs {_gib(room.host_bytes)} of host memory for {strategy.name} of "
            f"{parameters / 1e9:.1f}e9 parameters, {_gib(host)} are available"
        )
    if disk < room.disk_bytes:
        return (
            f"needs {_gib(room.disk_bytes)} of disk for {strategy.name} of {parameters / 1e9:.1f}e9 "
            f"parameters, {_gib(disk)} are free in {folder}; choose another --report-dir"
        )
    return ""


def full_parameters(workload_file: Path) -> int | None:
    """The ``full_parameters`` that the workload's class states as a number; None where it does not.

    The file is read, not run: only ranks import workloads.
    """
    try:
        tree = ast.parse(workload_file.read_text())
    except (OSError, SyntaxError, ValueError):
        return None  # Its launch will say what is wrong with it.
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            named = any(
                isinstance(one, ast.Name) and one.id == "full_parameters" for one in targets
            )
            if named and isinstance(node.value, ast.Constant) and isinstance(node.value.value, int):
                return node.value.value
    return None


def _gib(size: int) -> str:
    return f"{size / GIB:.0f} GiB"
