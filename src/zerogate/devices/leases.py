"""Leases of this machine to cells that run side by side: devices of their own, and room for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

from zerogate.devices.capacity import Capacity
from zerogate.devices.cards import Card


@dataclass(frozen=True, slots=True)
class Lease:
    """Devices and room on the host that one cell has while it runs."""

    devices: tuple[Card, ...]
    room: Capacity


class Leases:
    """Devices and room of a machine, part of which is leased."""

    def __init__(self, devices: Sequence[Card], room: Capacity) -> None:
        self._free = list(devices)
        self._host_bytes, self._disk_bytes = room.host_bytes, room.disk_bytes

    def take(self, alone: Lease) -> Lease | None:
        """Return a lease for a cell that has ``alone`` when it runs alone; None if too little is free.

        Its devices are of the same kinds, in the same order: bytes depend on them.
        """
        room = alone.room
        if room.host_bytes > self._host_bytes or room.disk_bytes > self._disk_bytes:
            return None
        free, taken = list(self._free), []
        for own in alone.devices:
            card = next((one for one in free if _kind(one) == _kind(own)), None)
            if card is None:
                return None
            free.remove(card)
            taken.append(card)
        self._free = free
        self._host_bytes -= room.host_bytes
        self._disk_bytes -= room.disk_bytes
        return Lease(tuple(taken), room)

    def give_back(self, lease: Lease) -> None:
        """End a lease."""
        self._free += lease.devices
        self._host_bytes += lease.room.host_bytes
        self._disk_bytes += lease.room.disk_bytes


def _kind(card: Card) -> Card:
    return replace(card, uuid="")


Key = TypeVar("Key")


def fit_beside_another(
    alone: Mapping[Key, Lease], devices: Sequence[Card], room: Capacity
) -> dict[Key, Lease]:
    """Return those of ``alone`` that can run at the same time as another one of them."""
    found = set()
    for first, second in combinations(alone, 2):
        leases = Leases(devices, room)
        if leases.take(alone[first]) and leases.take(alone[second]):
            found |= {first, second}
    return {key: lease for key, lease in alone.items() if key in found}
