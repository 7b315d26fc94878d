"""Where a cell's ranks run: on which devices, and who shares one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zerogate.config.strategy import Strategy
from zerogate.devices.capacity import shortage
from zerogate.devices.cards import Card, cuda_devices
from zerogate.protocol.cell import Cell


@dataclass(frozen=True, slots=True)
class Assignment:
    """``devices`` are CUDA devices, none on the cpu tier; ``shared`` where ranks share one."""

    devices: tuple[Card, ...]
    shared: bool

    @property
    def uuids(self) -> list[str]:
        return [card.uuid for card in self.devices]

    @property
    def has_bf16(self) -> bool:
        return all(card.has_bf16 for card in self.devices)


def assign_devices(cell: Cell, *, share_device: bool) -> Assignment:
    """Where the cell would run on this machine, as far as it has the devices."""
    devices = cuda_devices()[: cell.world_size] if cell.tier == "gpu" else ()
    return Assignment(devices, shared=share_device and 0 < len(devices) < cell.world_size)


def missing_capacity(
    cell: Cell,
    strategy: Strategy,
    place: Assignment,
    *,
    share_device: bool,
    root: Path,
    folder: Path,
) -> str:
    """Why there is no place for a full-size cell, with the numbers; empty where there is one.

    ``root`` is the project's, ``folder`` where disk offload goes.
    """
    found = len(place.devices)
    if found < cell.world_size and not place.shared:
        least = 1 if share_device else cell.world_size
        remedy = "; --share-device lets ranks share" if found else ""
        return f"needs {least} CUDA device{'s' if least != 1 else ''}, found {found}{remedy}"
    workload = root / "workloads" / f"{cell.workload}.py"
    return shortage(workload, strategy, cell.world_size, folder)
