"""Copies between host and device, and waits of the host, are counted; host memory can be pinned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from comparing import DEVICE

from zerogate.worker.native_library import NativeLibrary


def counted(library: NativeLibrary, call: Callable[[], Any]) -> tuple[int, int, int]:
    """Return the bytes to the device, those to the host and the waits of a call."""

    def read() -> tuple[int, int, int]:
        return library.bytes_to_device(), library.bytes_to_host(), library.waits()

    before = read()
    call()
    to_device, to_host, waits = (now - then for now, then in zip(read(), before, strict=True))
    return to_device, to_host, waits


def test_copies_are_counted_in_bytes_of_the_targets_dtype(library: NativeLibrary) -> None:
    host, there = torch.ones(3, 4), torch.ones(3, 4, device=DEVICE)
    for call, expected in (
        (lambda: host.to(DEVICE), (48, 0, 1)),
        (there.cpu, (0, 48, 1)),
        (lambda: host.t().to(DEVICE), (48, 0, 1)),
        (lambda: host[:, :2].to(DEVICE), (24, 0, 1)),
        (there[1].cpu, (0, 16, 1)),
        (lambda: there.copy_(host), (48, 0, 1)),
        (lambda: host.copy_(there), (0, 48, 1)),
        (lambda: there.copy_(host.bfloat16()), (48, 0, 1)),
        (lambda: torch.tensor([1, 2], device=DEVICE), (16, 0, 1)),
        (lambda: torch.empty(0).to(DEVICE), (0, 0, 0)),
    ):
        assert counted(library, call) == expected


def test_work_within_the_device_copies_nothing_and_waits_for_nothing(
    library: NativeLibrary,
) -> None:
    x = torch.ones(3, 4, device=DEVICE, requires_grad=True)
    y = torch.empty(3, 4, device=DEVICE)

    def work() -> None:
        y.copy_(x.detach())
        x.detach().clone().to(torch.bfloat16).contiguous()
        (x @ x.t()).softmax(-1).sum().backward()
        torch.zeros(3, device=DEVICE).add_(2)

    assert counted(library, work) == (0, 0, 0)


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x[0].item(),
        lambda x: float(x[0]),
        lambda x: bool(x[0] > 0),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.unique(),
        lambda x: torch.equal(x, x.clone()),
        lambda x: torch.get_device_module(DEVICE).synchronize(),
        lambda x: torch.get_device_module(DEVICE).current_stream().synchronize(),
    ],
    ids=["item", "float", "bool", "nonzero", "mask", "unique", "equal", "synchronize", "stream"],
)
def test_reading_a_value_waits(library: NativeLibrary, read: Callable[[torch.Tensor], Any]) -> None:
    x = torch.ones(3, device=DEVICE)
    assert counted(library, lambda: read(x))[2] == 1


def test_tolist_is_one_copy_and_one_wait(library: NativeLibrary) -> None:
    x = torch.ones(3, device=DEVICE)
    assert counted(library, x.tolist) == (0, 12, 1)


def test_pinned_memory_is_the_hosts_in_a_pool_of_its_own(library: NativeLibrary) -> None:
    device, host, pinned = (
        pool.live_bytes() for pool in (library.device, library.host, library.pinned)
    )
    made = [
        torch.ones(1000).pin_memory(),
        torch.empty(1000, pin_memory=True),
        torch.zeros(2, 500, pin_memory=True),
    ]
    for one in made:
        assert one.is_pinned()
        assert one.device.type == "cpu"
        assert one.data_ptr() % 4096 == 0
        assert one.view(-1)[3:].is_pinned()
    assert made[0].pin_memory() is made[0]
    assert not torch.ones(3).is_pinned()
    assert not torch.ones(3, device=DEVICE).is_pinned()
    assert library.pinned.live_bytes() - pinned == 12_000
    assert library.device.live_bytes() == device
    del made, one
    assert library.pinned.live_bytes() == pinned
    assert library.host.live_bytes() == host


def test_pinned_copies_need_not_wait(library: NativeLibrary) -> None:
    pinned, pageable = torch.ones(3).pin_memory(), torch.ones(3)
    there = torch.zeros(3, device=DEVICE)
    for call, expected in (
        (lambda: there.copy_(pinned, non_blocking=True), (12, 0, 0)),
        (lambda: pinned.copy_(there, non_blocking=True), (0, 12, 0)),
        (lambda: pinned[1:].to(DEVICE, non_blocking=True), (8, 0, 0)),
        (lambda: there.copy_(pinned), (12, 0, 1)),
        (lambda: there.copy_(pageable, non_blocking=True), (12, 0, 1)),
    ):
        assert counted(library, call) == expected
    assert there.tolist() == [1, 1, 1]


def test_loader_with_pinned_memory_pins_its_batches() -> None:
    loader = torch.utils.data.DataLoader(torch.arange(6.0), batch_size=2, pin_memory=True)
    batches = list(loader)
    assert all(one.is_pinned() for one in batches)
    assert torch.cat(batches).tolist() == [0, 1, 2, 3, 4, 5]
