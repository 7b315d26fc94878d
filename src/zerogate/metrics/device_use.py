"""Device use of ranks: NVML's readings, joined to the records of the ranks that ran there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from zerogate.devices.attribution import (
    SOURCES,
    RankOnDevice,
    Source,
    attribute_memory,
    choose_source,
    throttled,
)
from zerogate.devices.nvml import DeviceReadings
from zerogate.protocol.record import RankRecord

LEAST_CLOCK = 0.7
"""Fraction of the card's highest SM clock that a launch must reach once.

A card with a power cap still reaches it; one with a locked clock does not.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRecords:
    """Records of a launch's ranks, by rank, and what NVML read meanwhile.

    ``devices`` are the readings by UUID. They are None if nobody read them: on the cpu tier, and if a
    launch hook ran the ranks and left none. ``source`` is where this host's launches take the peaks of
    processes from; None to choose it by this launch. ``alone`` is false if something else of this
    session may have run meanwhile: the seconds in the records are then not to be trusted.
    """

    ranks: tuple[RankRecord, ...]
    devices: Mapping[str, DeviceReadings] | None = None
    source: Source | None = None
    alone: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RankDeviceUse:
    """Memory that one rank had on its device, and what happened there.

    ``peak_bytes`` is all that its process held, ``driver_bytes`` what the driver kept for itself.
    ``source`` says how both were found (``devices.attribution``); it is empty if nothing was read.
    ``missing`` says why the launch does not have the peak by that source.
    ``other_processes`` are pids of processes that were on the device and are no ranks. ``events`` are
    sentences on what makes the seconds of the launch not comparable.
    """

    peak_bytes: int = 0
    driver_bytes: int = 0
    source: Source | Literal[""] = ""
    missing: str = ""
    other_processes: tuple[int, ...] = ()
    events: tuple[str, ...] = ()


def device_use(launch: LaunchRecords) -> dict[int, RankDeviceUse]:
    """Return the device use by rank, without ranks that have no device; empty without readings."""
    source = launch.source or host_source(launch)
    found = {}
    for uuid, sharing in _by_device(launch.ranks).items():
        readings = _readings_of(launch.devices or {}, uuid)
        for place in sharing if launch.devices is not None else ():
            if readings is None or source is None:
                why = f"it ran on {uuid}, which was not watched"
                found[place.rank] = RankDeviceUse(missing=why, events=(why,))
            else:
                found[place.rank] = _use_of_rank(place, sharing, readings, source)
    return dict(sorted(found.items()))


def host_source(launch: LaunchRecords) -> Source | None:
    """Return the best source of peaks that this launch shows its host to have on all of its devices.

    None if no rank ran on a device that was read.
    """
    found: list[Source] = []
    for uuid, sharing in _by_device(launch.ranks).items():
        if (readings := _readings_of(launch.devices or {}, uuid)) is not None:
            found.append(choose_source(sharing, readings.before, readings.during))
    return max(found, key=SOURCES.index, default=None)


def _by_device(records: Sequence[RankRecord]) -> dict[str, list[RankOnDevice]]:
    """Return the ranks on each device, by torch's UUID of it."""
    found: dict[str, list[RankOnDevice]] = {}
    for record in records:
        if (device := record.device) is not None:
            place = RankOnDevice(
                rank=record.rank,
                pid=device.pid,
                uuid=device.uuid,
                reserved_bytes=device.peak_reserved_bytes,
                process_bytes=device.process_bytes,
            )
            found.setdefault(device.uuid, []).append(place)
    return found


def _use_of_rank(
    place: RankOnDevice, sharing: Sequence[RankOnDevice], readings: DeviceReadings, source: Source
) -> RankDeviceUse:
    found = attribute_memory(place, sharing, readings.before, readings.during, source)
    return RankDeviceUse(
        peak_bytes=found.peak_bytes,
        driver_bytes=found.driver_bytes,
        source=found.source,
        missing=found.missing,
        other_processes=found.other_processes,
        events=tuple(_events(readings, found.other_processes)),
    )


def _events(readings: DeviceReadings, other_processes: Sequence[int]) -> list[str]:
    found = [f"the device was throttled ({name})" for name in throttled(readings.reasons)]
    found += [f"process {pid} was on the device too" for pid in other_processes]
    if 0 < readings.slowdown_celsius <= readings.temperature_celsius:
        found.append(f"the device was at {readings.temperature_celsius} °C, where it slows down")
    if 0 < readings.most_sm_mhz < LEAST_CLOCK * readings.possible_sm_mhz:
        clocks = f"{readings.most_sm_mhz} of {readings.possible_sm_mhz} MHz"
        found.append(f"the device's clock never passed {clocks}: somebody holds it down")
    return found


def processes_before(
    record: RankRecord, devices: Mapping[str, DeviceReadings] | None
) -> tuple[int, ...]:
    """Return the pids that were on the rank's device before its launch.

    This is for a launch that ran out of memory. A process that came with the launch may be a rank that
    left no record, so that only earlier processes are known to be no ranks.
    """
    if record.device is None or devices is None:
        return ()
    readings = _readings_of(devices, record.device.uuid)
    return () if readings is None else tuple(sorted(readings.before.processes or ()))


def _readings_of(devices: Mapping[str, DeviceReadings], uuid: str) -> DeviceReadings | None:
    """Return the device's readings; None without any. torch's UUIDs lack the prefix of NVML's."""
    plain = uuid.removeprefix("GPU-").removeprefix("MIG-")
    return next((one for name, one in devices.items() if name.endswith(plain)), None)
