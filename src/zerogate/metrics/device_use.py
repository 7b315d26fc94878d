"""What NVML saw of the devices, joined to the records of the ranks that ran on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zerogate.devices.attribution import RankOnDevice, attribute_memory, throttled
from zerogate.devices.nvml import DeviceReadings
from zerogate.protocol.record import Device, RankRecord

LEAST_CLOCK = 0.7
"""Of the card's highest SM clock, reached once: a power cap leaves more, a locked clock less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRecords:
    """What a launch brought back: its ranks' records, by rank, and what NVML saw meanwhile.

    ``devices`` are the readings by UUID; None where nobody read them: on the cpu tier, and where a
    launch hook ran the ranks and left none.
    """

    ranks: tuple[RankRecord, ...]
    devices: Mapping[str, DeviceReadings] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RankDeviceUse:
    """What one rank had of its device, and what happened there.

    ``peak_bytes`` is all that its process held, ``driver_bytes`` what the driver kept for itself;
    ``source`` says how both were found (``devices.attribution``), and is empty where nothing was read.
    ``other_processes`` are pids that were on the device and are no rank's. ``events`` are sentences on
    what makes the seconds of the launch not comparable.
    """

    peak_bytes: int = 0
    driver_bytes: int = 0
    source: str = ""
    other_processes: tuple[int, ...] = ()
    events: tuple[str, ...] = ()


def device_use(launch: LaunchRecords) -> dict[int, RankDeviceUse]:
    """Return the device use by rank; nothing for ranks without a device, or where none was read."""
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

    For a launch that ran out of memory: a process that came with the launch may be a peer that left
    no record, so only the earlier ones are known to be no rank's.
    """
    if record.device is None or devices is None:
        return ()
    readings = _readings_of(devices, record.device.uuid)
    return () if readings is None else tuple(sorted(readings.before.processes or ()))


def _readings_of(devices: Mapping[str, DeviceReadings], uuid: str) -> DeviceReadings | None:
    """Return the device's readings. NVML's UUIDs begin with what they are of, torch's do not."""
    plain = uuid.removeprefix("GPU-").removeprefix("MIG-")
    return next((one for name, one in devices.items() if name.endswith(plain)), None)
