"""What a rank measures of a CUDA device, against the device itself and against NVML.

Needs one; everything else about devices is tested without (tests/unit).
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device here; .ci/card runs this on one", allow_module_level=True)

from zerogate.devices.cards import cuda_devices  # noqa: E402
from zerogate.devices.nvml import DeviceWatch, current_readings  # noqa: E402
from zerogate.worker.cuda_memory import CudaMemoryMeter, listed_bytes  # noqa: E402
from zerogate.worker.memory import Clock, MemoryPhases  # noqa: E402
from zerogate.worker.oom import is_device_oom  # noqa: E402

MIB = 2**20
SEEN_SECONDS = 30.0


@pytest.fixture
def meter() -> Iterator[CudaMemoryMeter]:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    yield CudaMemoryMeter()
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def block(mebibytes: int) -> torch.Tensor:
    return torch.empty(mebibytes * MIB, dtype=torch.uint8, device="cuda")


def test_memory_phase_has_exact_peak_and_live_bytes(meter: CudaMemoryMeter) -> None:
    phases = MemoryPhases(meter)
    with phases.phase("init"):
        kept, gone = block(64), block(32)
        del gone
    found = phases.phases["init"]
    assert (found.peak_allocated_bytes, found.live_bytes) == (96 * MIB, 64 * MIB)
    assert found.peak_requested_bytes <= 96 * MIB + meter.live_bytes()
    assert found.peak_active_bytes >= 96 * MIB
    assert found.peak_reserved_bytes >= found.peak_active_bytes
    del kept


def test_device_budget_raises_and_counts_out_of_memory(meter: CudaMemoryMeter) -> None:
    torch.zeros(1, device="cuda")
    before = meter.device()
    free, total = torch.cuda.mem_get_info()
    meter.set_budget(total - free + 512 * MIB)
    fits = block(256)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        block(512)
    assert is_device_oom(caught.value)
    assert meter.device().allocator_ooms == before.allocator_ooms + 1
    del fits


def test_pinned_memory_is_measured(meter: CudaMemoryMeter) -> None:
    held = torch.empty(32 * MIB, dtype=torch.uint8).pin_memory()
    assert meter.device().pinned_bytes >= held.numel()


def test_device_of_meter_is_known_to_nvml(meter: CudaMemoryMeter) -> None:
    torch.zeros(1, device="cuda")
    own = meter.device()
    known = [card for card in cuda_devices() if card.uuid.endswith(own.uuid)]
    assert [card.name for card in known] == [own.name]


def test_process_budget_covers_what_lies_outside_allocator(meter: CudaMemoryMeter) -> None:
    held = block(64)
    meter.set_budget(4 * 2**30)
    torch.ones(512, 512, device="cuda") @ torch.ones(512, 512, device="cuda")  # Loads cuBLAS.
    meter.keep_budget()
    assert 0 < meter.outside_bytes < 4 * 2**30
    with pytest.raises(torch.OutOfMemoryError):
        block(4096 - 64 - meter.outside_bytes // MIB + 2)
    assert meter.process_peak_bytes() <= 4 * 2**30
    if listed := listed_bytes(meter.device().uuid):  # Not in containers that hide pids.
        assert listed <= meter.device().process_bytes <= 4 * 2**30
    del held


def test_clock_lap_is_positive_and_within_host_time() -> None:
    matrix = torch.ones(4096, 4096, device="cuda")
    clock = Clock(torch.device("cuda"))
    torch.cuda.synchronize()
    start = time.perf_counter()
    clock.mark()
    for _ in range(20):
        matrix @ matrix
    clock.mark()
    (seconds,) = clock.laps()
    assert 0 < seconds <= time.perf_counter() - start


def test_device_watch_sees_256_mib_of_other_process() -> None:
    """They are added to what its context takes, and to what NVML tells of the process."""
    (card, *_) = cuda_devices()
    code = (
        "import sys, torch\n"
        "torch.cuda.init(); torch.zeros(1, device='cuda'); torch.cuda.synchronize()\n"
        "print(torch.cuda.memory_reserved(), flush=True); sys.stdin.readline()\n"
        "held = torch.empty(256 * 2**20, dtype=torch.uint8, device='cuda')\n"
        "print(torch.cuda.memory_reserved(), flush=True); sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        context = int(process.stdout.readline())
        before = current_readings([card.uuid])[card.uuid]
        with DeviceWatch([card.uuid]) as watch:
            print(file=process.stdin, flush=True)
            taken = int(process.stdout.readline()) - context
            device = watch.devices[card.uuid]
            give_up = time.monotonic() + SEEN_SECONDS
            while (
                max((one.used_bytes for one in device.during), default=0)
                < before.used_bytes + taken
            ):
                assert time.monotonic() < give_up, "NVML never told of it"
                time.sleep(0.05)
            now = current_readings([card.uuid])[card.uuid]
        print(file=process.stdin, flush=True)
    assert taken >= 256 * MIB
    own = (now.processes or {}).get(process.pid)
    was = (before.processes or {}).get(process.pid)
    if own is not None and was is not None:  # Not in containers that hide pids.
        assert own - was >= 256 * MIB
