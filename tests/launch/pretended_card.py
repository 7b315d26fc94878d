"""A CUDA device that is none, in ranks: ``torch.cuda`` tells of what torch holds on the host.

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
CONTEXT_BYTES = 64 * 2**20
KERNEL_BYTES = 2**20
"""What a process holds outside the allocator: its context, and a kernel for each kind of module that
has run. So it grows during the first step, after the budget was set.
"""


def pretend() -> None:
    """In a rank, first of all (``Job.preload``)."""
    import os

    import pynvml
    import torch

    from zerogate.worker.native_library import NativeLibrary, build
    from zerogate.worker.ops import load_what_is_built

    cpu = Path(os.environ["ZEROGATE_NATIVE_DIR"]).parent  # Ops for CUDA lie in a folder of it.
    os.environ["ZEROGATE_NATIVE_DIR"] = os.environ["TORCH_EXTENSIONS_DIR"] = str(cpu)
    load_what_is_built(cpu)
    allocator = NativeLibrary(build(cpu), devices=1).host

    def stats() -> dict[str, int]:
        peaks = dict.fromkeys(("requested", "active", "reserved"), allocator.peak_bytes())
        return {f"{name}_bytes.all.peak": peak for name, peak in peaks.items()} | {
            "num_alloc_retries": 0,
            "num_ooms": allocator.ooms(),
        }

    loaded: set[type] = set()

    def run(module: torch.nn.Module, arguments: object, result: object) -> None:
        loaded.add(type(module))

    torch.nn.modules.module.register_module_forward_hook(run)

    def outside() -> int:
        return CONTEXT_BYTES + KERNEL_BYTES * len(loaded)

    def processes(handle: object) -> list[SimpleNamespace]:
        """This rank alone, as on a device where NVML knows it by its pid."""
        held = allocator.live_bytes() + outside()
        return [SimpleNamespace(pid=os.getpid(), usedGpuMemory=held)]

    pynvml.nvmlInit = pynvml.nvmlShutdown = lambda: None
    pynvml.nvmlDeviceGetHandleByUUID = lambda uuid: uuid
    pynvml.nvmlDeviceGetComputeRunningProcesses = processes
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
        "synchronize": lambda: None,
        "empty_cache": lambda: None,
        "mem_get_info": lambda: (TOTAL_BYTES - allocator.live_bytes() - outside(), TOTAL_BYTES),
        "set_per_process_memory_fraction": lambda share: allocator.set_budget(
            int(share * TOTAL_BYTES)
        ),
    }
    for name, answer in told.items():
        assert hasattr(torch.cuda, name), name
        setattr(torch.cuda, name, answer)
    torch.cuda.nccl.version = lambda: (2, 28, 3)  # Ranks that share a card talk over gloo.
