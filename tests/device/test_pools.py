"""The bytes of device, host and pinned memory, each in a pool of its own, and the device's budget."""

from __future__ import annotations

import gc

import pytest
import torch
from comparing import DEVICE

from zerogate.worker.native_library import NativeLibrary, Pool


def grown(pool: Pool, before: int) -> int:
    return pool.live_bytes() - before


def test_each_pool_counts_its_own_bytes_and_gives_them_back(library: NativeLibrary) -> None:
    pools = library.device, library.host, library.pinned
    before = [pool.live_bytes() for pool in pools]
    made = [torch.empty(100, device=DEVICE), torch.empty(200), torch.empty(300, pin_memory=True)]
    assert [grown(pool, live) for pool, live in zip(pools, before, strict=True)] == [400, 800, 1200]
    del made
    assert [grown(pool, live) for pool, live in zip(pools, before, strict=True)] == [0, 0, 0]


def test_peak_keeps_the_most_until_it_is_reset(library: NativeLibrary) -> None:
    pool = library.device
    pool.reset_peak()
    live = pool.live_bytes()
    assert pool.peak_bytes() == live
    kept = torch.empty(100, device=DEVICE)
    torch.empty(1000, device=DEVICE)
    assert pool.peak_bytes() == live + 4400
    pool.reset_peak()
    assert pool.peak_bytes() == live + 400
    assert kept.numel() == 100


def test_temporaries_of_a_kernel_are_the_devices(library: NativeLibrary) -> None:
    x = torch.ones(64, 1000, device=DEVICE)
    host = library.host.live_bytes()
    for pool in (library.device, library.host):
        pool.reset_peak()
    live = library.device.live_bytes()
    x.t().sort(0)  # Sorts in scratch memory, beside values and indices.
    assert library.device.peak_bytes() >= live + x.nbytes + x.numel() * 8
    assert library.device.live_bytes() == live
    assert library.host.peak_bytes() - host < 4096


def test_views_and_resized_storages_are_counted_once(library: NativeLibrary) -> None:
    live = library.device.live_bytes()
    x = torch.empty(100, device=DEVICE)
    views = [x[1:], x.view(10, 10).t(), x.detach()]
    assert grown(library.device, live) == 400
    x.untyped_storage().resize_(0)
    assert grown(library.device, live) == 0
    x.untyped_storage().resize_(800)
    assert grown(library.device, live) == 800
    del x, views
    assert grown(library.device, live) == 0


def test_tensor_moved_in_place_gives_its_old_bytes_back(library: NativeLibrary) -> None:
    host, device = library.host.live_bytes(), library.device.live_bytes()
    module = torch.nn.Linear(10, 10, bias=False)
    assert (grown(library.host, host), grown(library.device, device)) == (400, 0)
    module.to(DEVICE)
    assert (grown(library.host, host), grown(library.device, device)) == (0, 400)
    module.cpu()
    assert (grown(library.host, host), grown(library.device, device)) == (400, 0)


@pytest.mark.parametrize("what", ["empty", "kernel", "resize", "copy"])
def test_budget_exceeded_is_out_of_memory_and_holds_nothing(
    library: NativeLibrary, what: str
) -> None:
    x, host = torch.ones(1000, device=DEVICE), torch.ones(3000)
    live, ooms = library.device.live_bytes(), library.device.ooms()
    library.device.set_budget(live + 8_000)
    with pytest.raises(
        torch.OutOfMemoryError, match=f"Tried to allocate .* budget of {live + 8_000} bytes"
    ):
        {
            "empty": lambda: torch.empty(3000, device=DEVICE),
            "kernel": lambda: torch.cat([x, x, x]),
            "resize": lambda: x.untyped_storage().resize_(12_000),
            "copy": lambda: host.to(DEVICE),
        }[what]()
    assert library.device.ooms() == ooms + 1
    gc.collect()
    assert library.device.live_bytes() == live
    assert (x + 1).tolist() == [2] * 1000
    library.device.set_budget(0)
    assert torch.empty(3000, device=DEVICE).numel() == 3000


def test_budget_is_the_devices_alone(library: NativeLibrary) -> None:
    library.device.set_budget(library.device.live_bytes() + 100)
    assert torch.empty(10_000).numel() == 10_000
    assert torch.empty(10_000, pin_memory=True).numel() == 10_000


def test_kernel_that_raises_keeps_nothing_and_leaves_its_inputs_usable(
    library: NativeLibrary,
) -> None:
    x = torch.ones(2, 3, device=DEVICE)
    live = library.device.live_bytes()
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        x @ x
    with pytest.raises(IndexError):
        x.index_select(5, x[0].long())
    assert library.device.live_bytes() == live
    assert x.device.type == x.untyped_storage().device.type == DEVICE
    host = library.host.live_bytes()
    kept = torch.empty(10)
    assert grown(library.host, host) == 40
    assert kept.untyped_storage().device.type == "cpu"


def peaks_of_a_step(library: NativeLibrary) -> list[int]:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(16, 64), torch.nn.GELU(), torch.nn.Dropout(), torch.nn.Linear(64, 4)]
    module = torch.nn.Sequential(*layers).to(DEVICE)
    optimizer = torch.optim.AdamW(module.parameters())
    peaks = []
    for _ in range(3):
        before = library.device.live_bytes()
        library.device.reset_peak()
        batch = torch.randn(8, 16).to(DEVICE)
        torch.nn.functional.cross_entropy(
            module(batch), torch.zeros(8, dtype=torch.long, device=DEVICE)
        ).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        peaks += [library.device.peak_bytes() - before, library.device.live_bytes() - before]
    return peaks


def test_peaks_of_a_training_step_are_the_same_in_every_run(library: NativeLibrary) -> None:
    live = library.device.live_bytes()
    runs = [peaks_of_a_step(library) for _ in range(3)]
    assert runs[0] == runs[1] == runs[2]
    gc.collect()
    assert library.device.live_bytes() == live
