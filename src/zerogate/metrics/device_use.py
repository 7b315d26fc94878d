"""What the controller saw of the devices, put into the records of the ranks that ran on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from zerogate.devices.attribution import RankOnDevice, device_use, throttled
from zerogate.devices.nvml import Watched
from zerogate.protocol.record import RankRecord

LEAST_CLOCK = 0.7
"""Of the card's highest SM clock, reached once: a power cap leaves more, a locked clock less."""


def with_device_use(
    records: Sequence[RankRecord], watched: Mapping[str, Watched]
) -> tuple[RankRecord, ...]:
    """``records`` with each rank's peak on its device, where that comes from, and what makes seconds
    worthless: a throttled device, or somebody else on it. Ranks without a device stay as they are.
    """
    places = [
        RankOnDevice(
            rank=record.rank,
            pid=record.device.pid,
            uuid=record.device.uuid,
            reserved_bytes=record.device.peak_reserved_bytes,
        )
        for record in records
        if record.device is not None
    ]
    by_rank = {place.rank: place for place in places}
    return tuple(
        _seen(record, by_rank[record.rank], places, watched) if record.rank in by_rank else record
        for record in records
    )


def _seen(
    record: RankRecord,
    place: RankOnDevice,
    places: Sequence[RankOnDevice],
    watched: Mapping[str, Watched],
) -> RankRecord:
    seen = _device(watched, place.uuid)
    assert record.device is not None
    if seen is None:
        why = f"it ran on {place.uuid}, which was not watched"
        return replace(record, device=replace(record.device, troubles=(why,)))
    sharing = [one for one in places if one.uuid == place.uuid]
    use = device_use(place, sharing, seen.before, seen.during)
    troubles = [f"the device was throttled ({name})" for name in throttled(seen.reasons)]
    troubles += [f"process {pid} was on the device too" for pid in use.others]
    if 0 < seen.slowdown_celsius <= seen.temperature_celsius:
        troubles.append(f"the device was at {seen.temperature_celsius} °C, where it slows down")
    if 0 < seen.most_sm_mhz < LEAST_CLOCK * seen.possible_sm_mhz:
        clocks = f"{seen.most_sm_mhz} of {seen.possible_sm_mhz} MHz"
        troubles.append(f"the device's clock never passed {clocks}: somebody holds it down")
    device = replace(
        record.device,
        peak_bytes=use.peak_bytes,
        driver_bytes=use.driver_bytes,
        source=use.source,
        strangers=use.others,
        troubles=tuple(troubles),
    )
    return replace(record, device=device)


def with_strangers(record: RankRecord | None, watched: Mapping[str, Watched]) -> RankRecord | None:
    """``record`` of a rank whose peers may have left none, with who was on its device before they came:
    of who came with them nobody can tell whether it was a peer.
    """
    if record is None or record.device is None:
        return record
    seen = _device(watched, record.device.uuid)
    strangers = tuple(sorted(seen.before.processes or ())) if seen is not None else ()
    return replace(record, device=replace(record.device, strangers=strangers))


def _device(watched: Mapping[str, Watched], uuid: str) -> Watched | None:
    """NVML's UUIDs begin with what they are of, torch's do not."""
    plain = uuid.removeprefix("GPU-").removeprefix("MIG-")
    return next((one for name, one in watched.items() if name.endswith(plain)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What NVML told while a launch ran, by UUID: beside the records of its ranks, so that both can be
    replayed where there is no card. ``origin`` tells a machine's answers from a person's.
    """

    origin: Literal["recorded", "hand-made"]
    devices: dict[str, Watched]


def readings_path(folder: Path) -> Path:
    return folder / "nvml.json"
