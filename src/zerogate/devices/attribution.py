"""What each rank had of its device, by the best source there is: a ladder, and which rung it was.

``source`` goes with each figure. Whatever says less than the rank's allocator had reserved is wrong
(another device, a host's pid, a driver that tells containers 0), and the next rung is tried. What the
calls mean: NVML's documentation of nvmlDeviceGetComputeRunningProcesses and nvmlDeviceGetMemoryInfo_v2.
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
    """A device at one moment, in bytes. ``driver_bytes`` is what the driver keeps for itself, which is
    not in ``used_bytes``. ``processes`` by pid; None for one whose memory is not told; None in all
    where they were not asked for at that moment.
    """

    used_bytes: int
    driver_bytes: int
    processes: Mapping[int, int | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RankOnDevice:
    """A rank, where it ran: ``reserved_bytes`` is the peak of its allocator's reserved memory."""

    rank: int
    pid: int
    uuid: str
    reserved_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUse:
    """``peak_bytes`` of a rank: allocator, context, kernels and libraries. ``others`` are pids that
    were on the device and are no rank's: its seconds are nobody's.
    """

    peak_bytes: int
    source: Source
    driver_bytes: int
    others: tuple[int, ...] = ()


def device_use(
    rank: RankOnDevice, sharing: Sequence[RankOnDevice], before: Reading, during: Sequence[Reading]
) -> DeviceUse:
    """What ``rank`` had, from readings of its device ``before`` the launch and ``during`` it.

    ``sharing`` are all ranks on that device, itself included.
    """
    listed = [reading.processes for reading in during if reading.processes is not None]
    old = set(before.processes or {})
    new = {pid for processes in listed for pid in processes} - old
    ours = {one.pid for one in sharing}
    driver = max((reading.driver_bytes for reading in during), default=before.driver_bytes)

    def told(pid: int) -> int:
        return max((processes.get(pid) or 0 for processes in listed), default=0)

    def use(source: Source, peak: int, others: set[int]) -> DeviceUse:
        return DeviceUse(
            peak_bytes=peak, source=source, driver_bytes=driver, others=tuple(sorted(others))
        )

    peak = told(rank.pid)
    if peak and peak >= rank.reserved_bytes:
        return use("nvml_process", peak, (old | new) - ours)
    # Host's pids in a container: nobody's is known, but who came with the launch is ours.
    came = new - ours
    if len(sharing) == 1 and len(came) == 1 and not new & ours:
        peak = told(next(iter(came)))
        if peak and peak >= rank.reserved_bytes:
            return use("nvml_process_by_elimination", peak, old)
    strangers = old | (came if len(came) > len(sharing) or new & ours else set())
    delta = max((reading.used_bytes for reading in during), default=0) - before.used_bytes
    if len(sharing) == 1 and not strangers and delta >= rank.reserved_bytes > 0:
        return use("nvml_device_delta", delta, set())
    return use("cuda_allocator", rank.reserved_bytes, strangers)


HARD = {
    "hw_slowdown": 0x08,
    "sw_thermal": 0x20,
    "hw_thermal": 0x40,
    "hw_power_brake": 0x80,
}
"""Bits of nvmlDeviceGetCurrentClocksEventReasons with which seconds say nothing of the stack. The power
cap (0x04) is a card's daily life under load, and idling (0x01) no throttling.
"""


def throttled(reasons: int) -> tuple[str, ...]:
    """Names of the reasons in ``reasons`` that make seconds invalid."""
    return tuple(name for name, bit in HARD.items() if reasons & bit)
