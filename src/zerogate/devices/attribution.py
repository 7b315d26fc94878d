"""Attribution of a device's memory to the ranks that ran on it, by the best available source.

A host has one ``source``: the best that its driver offers, whatever a launch's peak was. Each launch
takes its peaks from there, or says why it cannot; it never changes to another source, whose figure is
another quantity. A figure below what the rank's allocator reserved is wrong: the peak fell between two
readings, or another device or process was seen. NVML documents the calls:
nvmlDeviceGetComputeRunningProcesses and nvmlDeviceGetMemoryInfo_v2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Source = Literal[
    "nvml_process", "nvml_process_by_elimination", "nvml_device_delta", "cuda_allocator"
]
SOURCES: tuple[Source, ...] = get_args(Source)
"""From the best to the worst."""


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
    """A rank and its device; ``reserved_bytes`` is the peak that its allocator reserved.

    ``process_bytes`` is the peak of its process, as the rank learned from NVML; 0 if it did not.
    """

    rank: int
    pid: int
    uuid: str
    reserved_bytes: int
    process_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributedMemory:
    """Peak device memory of a rank: allocator, context, kernels and libraries.

    ``missing`` says why the source does not have it for this launch; ``peak_bytes`` is then what the
    allocator reserved. ``other_processes`` are the pids on the device that belong to no rank.
    """

    peak_bytes: int
    source: Source
    driver_bytes: int
    other_processes: tuple[int, ...] = ()
    missing: str = ""


class _Seen:
    """The ranks ``sharing`` a device, and other processes, as readings of it show them."""

    def __init__(
        self, sharing: Sequence[RankOnDevice], before: Reading, during: Sequence[Reading]
    ) -> None:
        self._listed = [one.processes for one in during if one.processes is not None]
        self._old = old = set(before.processes or {})
        new = {pid for processes in self._listed for pid in processes} - old
        ours = {one.pid for one in sharing}
        known = bool(new & ours) or any(one.process_bytes for one in sharing if one.pid not in old)
        self.came = new - ours
        """Pids that came with the launch and are no rank's; in a container they may be the host's."""
        strangers = self.came if known or len(self.came) > len(sharing) else set()
        self.others = (old | strangers) - ours
        self.rise = max((one.used_bytes for one in during), default=0) - before.used_bytes

    def peak(self, pid: int) -> int:
        return max((processes.get(pid) or 0 for processes in self._listed), default=0)

    def peak_of(self, rank: RankOnDevice) -> int:
        """Return the peak of the process with the rank's pid; 0 if it was there before the launch.

        That is a process of a container's host, which has the same pid as the rank in the container.
        """
        return 0 if rank.pid in self._old else max(rank.process_bytes, self.peak(rank.pid))


def choose_source(
    sharing: Sequence[RankOnDevice], before: Reading, during: Sequence[Reading]
) -> Source:
    """Return the host's best source for the ranks ``sharing`` a device, whatever their peaks were."""
    seen = _Seen(sharing, before, during)
    if all(map(seen.peak_of, sharing)):
        return "nvml_process"
    if len(sharing) > 1:
        return "cuda_allocator"  # Nothing else tells one rank from the other.
    # In a container NVML reports the host's pids, which match no rank. A single process that
    # appeared during the launch is then the rank's.
    if any(map(seen.peak, seen.came)):
        return "nvml_process_by_elimination"
    return "nvml_device_delta" if seen.rise > 0 else "cuda_allocator"


def attribute_memory(
    rank: RankOnDevice,
    sharing: Sequence[RankOnDevice],
    before: Reading,
    during: Sequence[Reading],
    source: Source,
) -> AttributedMemory:
    """Return the memory of ``rank`` by the host's ``source``, or why this launch does not have it.

    The readings are those of its device ``before`` and ``during`` the launch. ``sharing`` are all ranks
    on that device, ``rank`` included.
    """
    seen = _Seen(sharing, before, during)
    peak, missing = _by_source(rank, sharing, seen, source)
    if not missing and peak < rank.reserved_bytes:
        missing = (
            f"NVML showed at most {peak} bytes of process {rank.pid}, whose allocator reserved "
            f"{rank.reserved_bytes}"
        )
    return AttributedMemory(
        peak_bytes=rank.reserved_bytes if missing else peak,
        source=source,
        driver_bytes=max((one.driver_bytes for one in during), default=before.driver_bytes),
        other_processes=tuple(sorted(seen.others)),
        missing=missing,
    )


def _by_source(
    rank: RankOnDevice, sharing: Sequence[RankOnDevice], seen: _Seen, source: Source
) -> tuple[int, str]:
    """Return the rank's peak by ``source``, and why there is none."""
    if source == "nvml_process":
        peak = seen.peak_of(rank)
        return peak, "" if peak else f"NVML listed no bytes of process {rank.pid}"
    if len(sharing) > 1:
        return 0, "ranks share the device, and NVML does not tell here what each process holds"
    if source == "cuda_allocator":
        return 0, "NVML tells neither what a process holds here nor what the device does"
    if source == "nvml_process_by_elimination":
        count = len(seen.came)
        why = f"{count} processes came to the device with the launch; the rank's is not known"
        return (seen.peak(next(iter(seen.came))), "") if count == 1 else (0, why)
    others = ", ".join(map(str, sorted(seen.others)))
    return seen.rise, f"process {others} was on the device too" if others else ""


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
