"""The counting allocator behaves like a card, and collectives on gloo leave nothing behind."""

import os
import subprocess
import sys

import pytest

from tests.launch.conftest import TOY, available

ALLOCATOR = """
import gc, sys
from pathlib import Path

import torch

from zerogate.worker.allocator import CountingAllocator, build

before = torch.empty(1000)
allocator = CountingAllocator(build(Path(sys.argv[1])))
assert allocator.live_bytes() == 0
matrix = torch.empty(1000, 1000)
assert allocator.live_bytes() == 4_000_000
del matrix, before
assert (allocator.live_bytes(), allocator.peak_bytes()) == (0, 4_000_000)
allocator.reset_peak()
assert allocator.peak_bytes() == 0

# Memory that torch takes raw (oneDNN's) and storages that grow are counted too.
gelu = torch.nn.functional.gelu(torch.ones(64, 64))
grown = torch.empty(0).resize_(1000)
assert torch.equal(grown.fill_(2.0), torch.full((1000,), 2.0))
empty = torch.empty(0)
del gelu, grown, empty
gc.collect()
assert allocator.live_bytes() == 0

allocator.set_budget(10_000_000)
fits = torch.empty(2_500_000)
try:
    torch.empty(1)
except torch.OutOfMemoryError as error:
    assert "Tried to allocate 4 bytes with 10000000 bytes in use of a budget" in str(error)
else:
    sys.exit("the budget was crossed and nothing happened")
assert (allocator.ooms(), allocator.live_bytes()) == (1, 10_000_000)
del fits
allocator.set_budget(0)
torch.empty(5_000_000)
"""


def test_allocator_counts_bytes_and_enforces_budget(tmp_path):
    command = [sys.executable, "-c", ALLOCATOR, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_allocator_build_without_compiler_fails_with_hint(tmp_path):
    script = (
        "import sys; from pathlib import Path; from zerogate.worker.allocator import build\n"
        "build(Path(sys.argv[1]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": str(tmp_path)},
    )
    assert result.returncode == 1
    assert "cpu memory: no C++ compiler; " in result.stderr
    assert "install g++" in result.stderr


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
