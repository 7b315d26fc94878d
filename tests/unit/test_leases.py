"""Leases of devices and room to cells that run side by side."""

from __future__ import annotations

from zerogate.devices.capacity import Capacity
from zerogate.devices.cards import Card
from zerogate.devices.leases import Lease, Leases, fit_beside_another

GIB = 2**30
NOTHING = Capacity(0, 0)
ROOM = Capacity(100 * GIB, 100 * GIB)


def cards(number: int, name: str = "NVIDIA H200", first: int = 0) -> tuple[Card, ...]:
    return tuple(Card(name, f"GPU-{first + index}", 141 * GIB) for index in range(number))


def alone(number: int = 1, host: int = 0, disk: int = 0) -> Lease:
    """What a cell of so many ranks has: the first devices, and so many GiB."""
    return Lease(cards(number), Capacity(host * GIB, disk * GIB))


def uuids(lease: Lease | None) -> list[str]:
    assert lease is not None
    return [card.uuid for card in lease.devices]


def test_leases_are_disjoint_until_given_back() -> None:
    leases = Leases(cards(3), ROOM)
    first = leases.take(alone(2))
    assert first is not None
    assert uuids(first) == ["GPU-0", "GPU-1"]
    assert leases.take(alone(2)) is None
    assert uuids(leases.take(alone(1))) == ["GPU-2"]
    leases.give_back(first)
    assert uuids(leases.take(alone(2))) == ["GPU-0", "GPU-1"]


def test_lease_has_devices_of_same_kind_only() -> None:
    mixed = (*cards(2), *cards(2, "NVIDIA A100", first=2))
    leases = Leases(mixed, ROOM)
    assert uuids(leases.take(alone())) == ["GPU-0"]
    assert uuids(leases.take(alone())) == ["GPU-1"]
    assert leases.take(alone()) is None, "an A100 would measure other bytes"
    own = Lease((mixed[2],), NOTHING)
    assert uuids(leases.take(own)) == ["GPU-2"]


def test_leases_add_up_to_at_most_room_of_host() -> None:
    for more in ({"host": 60}, {"disk": 60}):
        leases = Leases(cards(2), ROOM)
        first = leases.take(alone(**more))
        assert first is not None
        assert leases.take(alone(**more)) is None
        assert leases.take(alone()) is not None, "devices are free; a refusal took none"
        leases.give_back(first)
        assert leases.take(alone(**more)) is not None


def test_cells_that_fit_beside_no_other_are_left_out() -> None:
    cells = {"two": alone(2), "one": alone(1), "offload": alone(1, host=60)}
    assert list(fit_beside_another(cells, cards(2), ROOM)) == ["one", "offload"]
    assert list(fit_beside_another(cells, cards(3), ROOM)) == ["two", "one", "offload"]
    assert fit_beside_another(cells, cards(1), ROOM) == {}
    offloads = {"a": alone(host=60), "b": alone(host=60)}
    assert fit_beside_another(offloads, cards(2), ROOM) == {}
