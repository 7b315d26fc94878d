"""Host memory and disk space that a full-size cell with offload needs on this machine.

On a host without memory the kernel kills any process, so this is checked before the launch.
"""

from __future__ import annotations

import ast
import shutil
from dataclasses import dataclass
from pathlib import Path

from zerogate.config.strategy import Strategy
from zerogate.devices.host_memory import available_memory_bytes, may_lock_bytes
from zerogate.protocol.units import GIB

OPTIMIZER_BYTES = 16
"""A parameter's master copy, two Adam moments and gradient, in fp32 (ZeRO paper, arXiv 1910.02054,
section 3.1; ZeRO-Offload, arXiv 2101.06840, section 3), which optimizer offload moves to disk."""

MOMENTS_BYTES = 8
"""A parameter's Adam moments in fp32: the part of it that DeepSpeed does not pin."""

FULL_BYTES = 4
HALF_BYTES = 2
SUB_GROUP_PARAMETERS = 1_000_000_000
"""DeepSpeed's default for ZeRO-3: it offloads gradients in tensors of this many parameters."""

OPTIMIZER_BUFFERS = 4
PARAMETER_BUFFERS = 5
PARAMETER_BUFFER_ELEMENTS = 100_000_000
"""DeepSpeed's defaults for offload to disk (deepspeed/runtime/zero/offload_config.py)."""

BUILT_BYTES = 4
"""A parameter in fp32, in the model that each rank builds on the host before it is sharded.

Ranks that map it from the cache of initial weights need less; the launch that fills it does not."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """Bytes of host memory and of disk, for all ranks together.

    ``locked_bytes`` is the part of the host memory that each rank locks by itself (``mlock``).
    """

    host_bytes: int
    disk_bytes: int
    locked_bytes: int = 0


def needed(parameters: int, strategy: Strategy, world_size: int) -> Capacity:
    """Return the least that a full-size model of ``parameters`` needs under ``strategy``.

    All of it is in use at once when the engine has taken over the last rank's states.
    """
    places = strategy.offload_optimizer, strategy.offload_param
    optimizer, param = (place == "cpu" for place in places)
    sizes = OPTIMIZER_BYTES, HALF_BYTES
    on_disk = sum(size for place, size in zip(places, sizes, strict=True) if place == "nvme")
    share = -(-parameters // world_size)
    locked, flat = _buffers(share, strategy)
    return Capacity(
        host_bytes=(locked + flat) * world_size
        + host_bytes(
            parameters, world_size, zero_stage=strategy.zero_stage, optimizer=optimizer, param=param
        ),
        disk_bytes=on_disk * parameters,
        locked_bytes=locked,
    )


def _buffers(share: int, strategy: Strategy) -> tuple[int, int]:
    """Return the bytes that a rank locks and that it pins to move its ``share`` to and from disk
    (deepspeed/runtime/zero/stage3.py, runtime/swap_tensor).
    """
    largest = min(share, SUB_GROUP_PARAMETERS)
    locked = pinned = 0
    if strategy.offload_optimizer == "nvme":
        locked += OPTIMIZER_BUFFERS * FULL_BYTES * largest
        pinned += _pinned(HALF_BYTES * share)  # Gradients.
    if strategy.offload_param == "nvme":
        locked += PARAMETER_BUFFERS * HALF_BYTES * PARAMETER_BUFFER_ELEMENTS + HALF_BYTES * largest
    return locked, pinned


def host_bytes(
    parameters: int, world_size: int, *, zero_stage: int, optimizer: bool, param: bool
) -> int:
    """Return the host memory of all ranks in bytes; ``optimizer``, ``param``: offloaded to the host."""
    share = -(-parameters // world_size)
    of_rank = BUILT_BYTES * parameters
    if optimizer:
        of_rank += _optimizer_on_host(share, zero_stage)
    if param:
        of_rank += _pinned(HALF_BYTES * share)
    return of_rank * world_size


def _optimizer_on_host(share: int, stage: int) -> int:
    """Return the bytes of a rank's ``share`` of the optimizer on the host, as DeepSpeed 0.19 holds it.

    It has the moments, a master copy, the gradients and a half-precision copy (of the gradients under
    ZeRO-3). All but the moments and ZeRO-3's master copy are pinned.
    """
    half = _pinned(HALF_BYTES * share)
    if stage < 3:
        return MOMENTS_BYTES * share + 2 * _pinned(FULL_BYTES * share) + half
    whole, rest = divmod(share, SUB_GROUP_PARAMETERS)
    gradients = whole * _pinned(FULL_BYTES * SUB_GROUP_PARAMETERS) + _pinned(FULL_BYTES * rest)
    return (MOMENTS_BYTES + FULL_BYTES) * share + gradients + half


def _pinned(size: int) -> int:
    """Return the bytes that torch takes to pin ``size`` bytes: its allocator rounds up to a power of
    two (torch's ATen/core/CachingHostAllocator.h).
    """
    return 1 << (size - 1).bit_length() if size else 0


def needs(workload_file: Path, strategy: Strategy, world_size: int) -> Capacity:
    """Return what the cell needs of the host; nothing if the workload does not state its size."""
    parameters = full_parameters(workload_file)
    return Capacity(0, 0) if parameters is None else needed(parameters, strategy, world_size)


def available(folder: Path) -> Capacity:
    """Return what this machine has left for all cells. ``folder`` is the one for disk offload."""
    return Capacity(available_memory_bytes(), shutil.disk_usage(folder).free)


def shortage(workload_file: Path, strategy: Strategy, world_size: int, folder: Path) -> str:
    """Return what this machine lacks for the cell, with the numbers; empty if nothing.

    Also empty if the workload does not state its size. ``folder`` is the one for disk offload.
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
    if (limit := may_lock_bytes()) is not None and limit < room.locked_bytes:
        return (
            f"needs to lock {_gib(room.locked_bytes)} of memory a rank for {strategy.name} of "
            f"{parameters / 1e9:.1f}e9 parameters, the limit is {limit // 1024} KiB; raise ulimit -l"
        )
    if disk < room.disk_bytes:
        return (
            f"needs {_gib(room.disk_bytes)} of disk for {strategy.name} of {parameters / 1e9:.1f}e9 "
            f"parameters, {_gib(disk)} are free in {folder}; choose another --report-dir"
        )
    return ""


def full_parameters(workload_file: Path) -> int | None:
    """Return ``full_parameters`` if the workload's class states it as a number; None if not.

    The file is read, not run: only ranks import workloads.
    """
    try:
        tree = ast.parse(workload_file.read_text())
    except (OSError, SyntaxError, ValueError):
        return None  # The launch reports what is wrong with the file.
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
