"""A CUDA device that is none: in ranks ``torch.cuda`` tells of the counting CPU allocator, and in the
controller NVML tells of the ranks' processes. What lies between, the whole gpu tier, is the real thing.

What only a card has stays untried: streams and events, NCCL, autocast to fp16, compiled CUDA ops.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

UUID = "0badcafe-0000"
"""As torch has it; NVML's begins with GPU-."""
NAME = "NVIDIA Pretended"
TOTAL_BYTES = 8 * 2**30
RANK_BYTES = 3 * 2**30
"""Of each rank's process, as NVML has it: more than its allocator ever reserves."""


def pretend() -> None:
    """In a rank, first of all (``Job.preload``)."""
    import os

    import torch

    from zerogate.rank.allocator import CountingAllocator, build
    from zerogate.rank.ops import load_what_is_built

    cpu = Path(os.environ["ZEROGATE_NATIVE_DIR"]).parent  # Ops for CUDA lie in a folder of it.
    os.environ["ZEROGATE_NATIVE_DIR"] = os.environ["TORCH_EXTENSIONS_DIR"] = str(cpu)
    load_what_is_built(cpu)
    allocator = CountingAllocator(build(cpu))

    def stats() -> dict[str, int]:
        peaks = dict.fromkeys(("requested", "active", "reserved"), allocator.peak_bytes())
        return {f"{name}_bytes.all.peak": peak for name, peak in peaks.items()} | {
            "num_alloc_retries": 0,
            "num_ooms": allocator.ooms(),
        }

    told: dict[str, Any] = {
        "current_device": lambda: 0,
        "get_device_properties": lambda device: SimpleNamespace(uuid=UUID, name=NAME),
        "memory_allocated": allocator.live_bytes,
        "max_memory_allocated": allocator.peak_bytes,
        "memory_reserved": allocator.live_bytes,
        "max_memory_reserved": allocator.peak_bytes,
        "reset_peak_memory_stats": allocator.reset_peak,
        "memory_stats": stats,
        "host_memory_stats": dict,
        "mem_get_info": lambda: (TOTAL_BYTES - allocator.live_bytes(), TOTAL_BYTES),
        "set_per_process_memory_fraction": lambda share: allocator.set_budget(
            int(share * TOTAL_BYTES)
        ),
    }
    for name, answer in told.items():
        assert hasattr(torch.cuda, name), name
        setattr(torch.cuda, name, answer)
    torch.cuda.nccl.version = lambda: (2, 28, 3)  # Ranks that share a card talk over gloo.


class Driver(SimpleNamespace):
    """NVML in the controller: one device, and on it the ranks that run now."""

    import pynvml as _real

    NVMLError = _real.NVMLError
    nvmlMemory_v2 = _real.nvmlMemory_v2
    NVML_DEVICE_MIG_ENABLE = _real.NVML_DEVICE_MIG_ENABLE
    NVML_TEMPERATURE_GPU = NVML_CLOCK_SM = NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 0

    def __init__(self) -> None:
        super().__init__()
        self.strangers: dict[int, int] = {}
        self.more = 0

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.1"

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"GPU-{UUID}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        assert uuid == f"GPU-{UUID}"
        return uuid

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return handle

    def nvmlDeviceGetName(self, handle: str) -> str:
        return NAME

    def nvmlDeviceGetCudaComputeCapability(self, handle: str) -> list[int]:
        return [9, 0]

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:
        raise self.NVMLError(self._real.NVML_ERROR_NOT_SUPPORTED)

    def nvmlDeviceGetMemoryInfo(self, handle: str, version: Any = None) -> SimpleNamespace:
        used = sum(self._processes().values())
        return SimpleNamespace(total=TOTAL_BYTES, used=used, reserved=2**20)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        found = self._processes().items()
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in found]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        return []

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:
        return 0

    def nvmlDeviceGetTemperature(self, handle: str, kind: int) -> int:
        return 61

    def nvmlDeviceGetMaxClockInfo(self, handle: str, kind: int) -> int:
        return 1980

    def nvmlDeviceGetTemperatureThreshold(self, handle: str, kind: int) -> int:
        return 87

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:
        return 1755

    def _processes(self) -> dict[int, int]:
        """The ranks' are the children of the fork server, which has a context of none."""
        import psutil

        ranks = {
            child.pid: RANK_BYTES + self.more
            for server in psutil.Process().children()
            for child in server.children()
        }
        return ranks | self.strangers
