"""The emulated device counts memory and copies as a card does."""

import subprocess
import sys

import pytest

from tests.launch.conftest import TOY, available

SCRIPT = """
import gc, sys
from pathlib import Path

import torch

from zerogate.worker import emulated_device
from zerogate.worker.native_library import NativeLibrary, build

library = NativeLibrary(build(Path(sys.argv[1])), devices=1)
emulated_device.register(library)
emulated_device.use(0)
device, host, pinned = library.device, library.host, library.pinned


def live():
    gc.collect()
    return device.live_bytes(), host.live_bytes(), pinned.live_bytes()
"""

POOLS = """
floor = live()
matrix = torch.empty(1000, 1000, device="emulated")
assert live() == (4_000_000 + floor[0], *floor[1:])
on_host = torch.empty(500)
assert live() == (4_000_000 + floor[0], 2000 + floor[1], floor[2])
locked = torch.empty(250, pin_memory=True)
assert locked.is_pinned() and not on_host.is_pinned()
assert live() == (4_000_000 + floor[0], 2000 + floor[1], 1000 + floor[2])
del matrix, on_host, locked
assert live() == floor
assert (device.peak_bytes(), host.peak_bytes(), pinned.peak_bytes()) >= (4_000_000, 2000, 1000)
for pool in (device, host, pinned):
    pool.reset_peak()
assert (device.peak_bytes(), host.peak_bytes(), pinned.peak_bytes()) == floor

# Memory that torch takes raw (oneDNN's) and storages that grow are counted where they are.
gelu = torch.nn.functional.gelu(torch.ones(64, 64, device="emulated"))
grown = torch.empty(0, device="emulated").resize_(1000)
assert torch.equal(grown.fill_(2.0).cpu(), torch.full((1000,), 2.0))
assert live()[0] == floor[0] + 64 * 64 * 4 + 4000
assert device.peak_bytes() >= floor[0] + 2 * 64 * 64 * 4
del gelu, grown
assert live() == floor
"""

BUDGET = """
held = device.live_bytes()
device.set_budget(held + 10_000_000)
fits = torch.empty(2_500_000, device="emulated")
on_host = torch.empty(5_000_000)
try:
    torch.empty(1, device="emulated")
except torch.OutOfMemoryError as error:
    told = f"emulated device out of memory. Tried to allocate 4 bytes with {held + 10_000_000} bytes"
    assert told in str(error), error
else:
    sys.exit("the budget was crossed and nothing happened")
assert (device.ooms(), device.live_bytes()) == (1, held + 10_000_000)
assert host.ooms() == 0
del fits
device.set_budget(0)
torch.empty(5_000_000, device="emulated")
"""

CROSSINGS = """
def crossed(do):
    before = library.bytes_to_device(), library.bytes_to_host(), library.waits()
    do()
    after = library.bytes_to_device(), library.bytes_to_host(), library.waits()
    return tuple(now - then for now, then in zip(after, before))


there = torch.zeros(100, device="emulated")
pageable, locked = torch.zeros(100), torch.zeros(100, pin_memory=True)
assert crossed(lambda: there.copy_(pageable)) == (400, 0, 1)
assert crossed(lambda: there.copy_(pageable, non_blocking=True)) == (400, 0, 1), "it is not pinned"
assert crossed(lambda: there.copy_(locked, non_blocking=True)) == (400, 0, 0)
assert crossed(lambda: locked.copy_(there, non_blocking=True)) == (0, 400, 0)
assert crossed(lambda: there.cpu()) == (0, 400, 1)
assert crossed(lambda: there.add_(1).clone()) == (0, 0, 0)
assert crossed(lambda: pageable.clone()) == (0, 0, 0)
waits = crossed(lambda: there.sum().item())[2]
assert waits == 1, "a value that is read is waited for"
"""


@pytest.mark.parametrize(
    "checks",
    [
        pytest.param(POOLS, id="pools"),
        pytest.param(BUDGET, id="budget"),
        pytest.param(CROSSINGS, id="crossings"),
    ],
)
def test_emulated_device_counts_bytes_as_card_would(tmp_path_factory, checks):
    folder = tmp_path_factory.getbasetemp() / "native"  # It is built once.
    command = [sys.executable, "-c", SCRIPT + checks, str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_memory_peaks_and_live_bytes_match_parameter_count(launches):
    session = launches.session()
    available(session, TOY)
    measurement = session.measure(TOY)
    for name in ("peak_init_bytes", "peak_first_step_bytes", "peak_allocated_bytes"):
        assert measurement.value(name) > 4 * measurement.settings["parameters"]
    # Parameters, their gradients' buckets, two optimizer states each: four times four bytes.
    assert measurement.value("live_bytes") == pytest.approx(
        16 * measurement.settings["parameters"], rel=0.1
    )
