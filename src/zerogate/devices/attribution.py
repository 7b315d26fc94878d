"""Attribution of a device's memory to the ranks that ran on it, by the best available source.

Each figure comes with its ``source``. A source is wrong if it reports less than the rank's allocator
reserved: it saw another device, a pid of the host, or a driver that reports 0 to containers. Then the
next source is tried. NVML documents the calls: nvmlDeviceGetComputeRunningProcesses and
nvmlDeviceGetMemoryInfo_v2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Source = Literal[
    "nvml_process", "nvml_process_by_elimination", "nvml_device_delta", "cuda_allocator"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """State of a device at one moment, in bytes.

    ``driver_bytes`` is what the driver keeps for itself; ``used_bytes`` does not include it.
    ``processes`` maps a pid to its bytes, or to None if NVML does not report them. It is None as a
    whole if the reading has no list of processes.
    """

    used_bytes: int
    driver_bytes: int
    processes: Mapping[int, int | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RankOnDevice:
    """A rank and its device; ``reserved_bytes`` is the peak that its allocator reserved."""

    rank: int
    pid: int
    uuid: str
    reserved_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributedMemory:
    """Peak device memory of a rank: allocator, context, kernels and libraries.

    ``other_processes`` are the pids on the device that belong to no rank.
    """

    peak_bytes: int
    source: Source
    driver_bytes: int
    other_processes: tuple[int, ...] = ()


def attribute_memory(
    rank: RankOnDevice, sharing: Sequence[RankOnDevice], before: Reading, during: Sequence[Reading]
) -> AttributedMemory:
    """Return the memory of ``rank``, from readings of its device ``before`` and ``during`` the launch.

    ``sharing`` are all ranks on that device, ``rank`` included.
    """
    listed = [reading.processes for reading in during if reading.processes is not None]
    old = set(before.processes or {})
    new = {pid for processes in listed for pid in processes} - old
    ours = {one.pid for one in sharing}
    driver = max((reading.driver_bytes for reading in during), default=before.driver_bytes)

    def listed_peak(pid: int) -> int:
        return max((processes.get(pid) or 0 for processes in listed), default=0)

    def use(source: Source, peak: int, others: set[int]) -> AttributedMemory:
        return AttributedMemory(
            peak_bytes=peak,
            source=source,
            driver_bytes=driver,
            other_processes=tuple(sorted(others)),
        )

    peak = listed_peak(rank.pid)
    if peak and peak >= rank.reserved_bytes:
        return use("nvml_process", peak, (old | new) - ours)
    # In a container NVML reports the host's pids, which match no rank. A single process that
    # appeared during the launch is then the rank's.
    came = new - ours
    if len(sharing) == 1 and len(came) == 1 and not new & ours:
        peak = listed_peak(next(iter(came)))
        if peak and peak >= rank.reserved_bytes:
            return use("nvml_process_by_elimination", peak, old)
    others = old | (came if len(came) > len(sharing) or new & ours else set())
    delta = max((reading.used_bytes for reading in during), default=0) - before.used_bytes
    if len(sharing) == 1 and not others and delta >= rank.reserved_bytes > 0:
        return use("nvml_device_delta", delta, set())
    return use("cuda_allocator", rank.reserved_bytes, others)


HARD = {
    "hw_slowdown": 0x08,
    "sw_thermal": 0x20,
    "hw_thermal": 0x40,
    "hw_power_brake": 0x80,
}
"""Bits of nvmlDeviceGetCurrentClocksEventReasons that make seconds invalid. The power cap (0x04) is
normal under load, and idle (0x01) is not throttling.
"""


def throttled(reasons: int) -> tuple[str, ...]:
    """Return the names of the reasons in ``reasons`` that make seconds invalid."""
    return tuple(name for name, bit in HARD.items() if reasons & bit)
