"""Device use of ranks: NVML's readings, joined to the records of the ranks that ran there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zerogate.devices.attribution import RankOnDevice, attribute_memory, throttled
from zerogate.devices.nvml import DeviceReadings
from zerogate.protocol.record import Device, RankRecord

LEAST_CLOCK = 0.7
"""Fraction of the card's highest SM clock that a launch must reach once.

A card with a power cap still reaches it; one with a locked clock does not.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRecords:
    """Records of a launch's ranks, by rank, and what NVML read meanwhile.

    ``devices`` are the readings by UUID. They are None if nobody read them: on the cpu tier, and if a
    launch hook ran the ranks and left none.
    """

    ranks: tuple[RankRecord, ...]
    devices: Mapping[str, DeviceReadings] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RankDeviceUse:
    """Memory that one rank had on its device, and what happened there.

    ``peak_bytes`` is all that its process held, ``driver_bytes`` what the driver kept for itself.
    ``source`` says how both were found (``devices.attribution``); it is empty if nothing was read.
    ``other_processes`` are pids of processes that were on the device and are no ranks. ``events`` are
    sentences on what makes the seconds of the launch not comparable.
    """

    peak_bytes: int = 0
    driver_bytes: int = 0
    source: str = ""
    other_processes: tuple[int, ...] = ()
    events: tuple[str, ...] = ()


def device_use(launch: LaunchRecords) -> dict[int, RankDeviceUse]:
    """Return the device use by rank, without ranks that have no device; empty without readings."""
    if launch.devices is None:
        return {}
    placed = {
        record.rank: _placed(record.rank, record.device)
        for record in launch.ranks
        if record.device is not None
    }
    everyone = list(placed.values())
    return {rank: _use_of_rank(place, everyone, launch.devices) for rank, place in placed.items()}


def _placed(rank: int, device: Device) -> RankOnDevice:
    return RankOnDevice(
        rank=rank, pid=device.pid, uuid=device.uuid, reserved_bytes=device.peak_reserved_bytes
    )


def _use_of_rank(
    place: RankOnDevice, everyone: Sequence[RankOnDevice], devices: Mapping[str, DeviceReadings]
) -> RankDeviceUse:
    readings = _readings_of(devices, place.uuid)
    if readings is None:
        return RankDeviceUse(events=(f"it ran on {place.uuid}, which was not watched",))
    sharing = [one for one in everyone if one.uuid == place.uuid]
    found = attribute_memory(place, sharing, readings.before, readings.during)
    return RankDeviceUse(
        peak_bytes=found.peak_bytes,
        driver_bytes=found.driver_bytes,
        source=found.source,
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
