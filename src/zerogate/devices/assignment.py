"""Assignment of a cell's ranks to CUDA devices, and which of them share one."""

from __future__ import annotations

from dataclasses import dataclass

from zerogate.config.options import Options
from zerogate.config.strategy import Strategy
from zerogate.devices.capacity import shortage
from zerogate.devices.cards import Card, cuda_devices
from zerogate.protocol.cell import Cell
from zerogate.protocol.units import GIB

ARTICLE_CARD_BYTES = 24 * GIB
"""The memory of the card that the article's batch sizes were found on."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """CUDA devices of a cell's ranks; none on the cpu tier. ``shared``: ranks share a device."""

    devices: tuple[Card, ...]
    shared: bool
    ranks: int

    @property
    def uuids(self) -> list[str]:
        return [card.uuid for card in self.devices]

    @property
    def has_bf16(self) -> bool:
        return all(card.has_bf16 for card in self.devices)

    @property
    def default_memory_bytes(self) -> int:
        """Default memory budget of each rank, in bytes, if the user sets none.

        On the cpu tier it is the memory of the article's card; a scale model gets its share of it. On
        the gpu tier it is the rank's share of the smallest device, rounded down to whole GiB: the
        remainder differs by driver.
        """
        if not self.devices:
            return ARTICLE_CARD_BYTES
        sharing = -(-self.ranks // len(self.devices)) if self.shared else 1
        return min(card.usable_bytes for card in self.devices) // sharing // GIB * GIB


def assign_devices(cell: Cell, *, share_device: bool) -> Assignment:
    """Return the first ``world_size`` CUDA devices, or all if the machine has fewer.

    Ranks share devices only if there are too few and ``share_device`` allows it.
    """
    devices = cuda_devices()[: cell.world_size] if cell.tier == "gpu" else ()
    shared = share_device and 0 < len(devices) < cell.world_size
    return Assignment(devices, shared, ranks=cell.world_size)


def missing_capacity(
    cell: Cell, strategy: Strategy, assignment: Assignment, options: Options
) -> str:
    """Return what a full-size cell lacks on this machine, with the numbers; empty if nothing."""
    found = len(assignment.devices)
    if found < cell.world_size and not assignment.shared:
        least = 1 if options.share_device else cell.world_size
        remedy = "; --share-device lets ranks share" if found else ""
        return f"needs {least} CUDA device{'s' if least != 1 else ''}, found {found}{remedy}"
    workload = options.project.workload_file(cell.workload)
    return shortage(workload, strategy, cell.world_size, options.report_folder)
