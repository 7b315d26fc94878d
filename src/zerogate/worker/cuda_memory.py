"""A rank's CUDA device: statistics of the caching allocator, and a budget like a smaller card's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

import torch
import torch.distributed as dist

from zerogate.protocol.record import Device

PEAKS = ("requested", "active", "reserved")

GROWTH_BYTES = 64 * 2**20
"""Bytes set aside for what still grows outside the allocator after it was measured.

Each size loads a few kernels of its own. Without this, a size whose cache fills the allocator's share
would exceed the budget by them, and not fit for that alone. The figure was not measured on a card.
"""


class CudaMemoryMeter:
    """Meter that reads the CUDA caching allocator's statistics for the current device."""

    source = "cuda_allocator"
    grows_outside = True

    def __init__(self) -> None:
        self.outside_bytes = -1
        self._most_reserved = 0
        self._most_of_process = 0
        self._budget_bytes: int | None = None
        self._set_aside_bytes = -1

    def device(self) -> Device:
        """Return this rank's device and the peak that its allocator reserved there in all phases."""
        found = torch.cuda.get_device_properties(torch.cuda.current_device())
        stats = torch.cuda.memory_stats()
        self.note_process()
        return Device(
            uuid=str(found.uuid),
            name=found.name,
            pid=os.getpid(),
            peak_reserved_bytes=max(self._most_reserved, torch.cuda.max_memory_reserved()),
            allocator_retries=int(stats["num_alloc_retries"]),
            allocator_ooms=int(stats["num_ooms"]),
            pinned_bytes=int(torch.cuda.host_memory_stats().get("allocated_bytes.peak", 0)),
            process_bytes=self._most_of_process,
        )

    def note_process(self) -> int:
        """Ask NVML what this process holds, and keep the highest answer for ``device``.

        Returns what lies outside the allocator, in bytes; 0 if NVML does not tell. What the allocator
        has given back since the last reset is added to the answer: it was the process's too.
        """
        outside = max(0, listed_bytes(_uuid()) - torch.cuda.memory_reserved())
        if outside:
            peak = outside + torch.cuda.max_memory_reserved()
            self._most_of_process = max(self._most_of_process, peak)
        return outside

    def live_bytes(self) -> int:
        return torch.cuda.memory_allocated()

    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated()

    def further_peaks(self) -> dict[str, int]:
        """Return the peaks since the last reset, in bytes, by field of PhaseMemory."""
        stats = torch.cuda.memory_stats()
        return {f"peak_{name}_bytes": int(stats[f"{name}_bytes.all.peak"]) for name in PEAKS}

    def host_memory(self) -> None:
        """Return None: torch counts only pinned memory there, for the whole run (``device``)."""

    def crossings(self) -> None:
        """Return None: torch does not count copies."""

    def reset_peak(self) -> None:
        self._most_reserved = max(self._most_reserved, torch.cuda.max_memory_reserved())
        torch.cuda.reset_peak_memory_stats()

    def set_budget(self, size_bytes: int, floor_bytes: int = 0) -> None:
        """Limit this process to ``size_bytes`` of the card. Collective.

        The budget is the whole process's: ``floor_bytes`` and what lies outside the allocator are part
        of it. The allocator may use the rest.
        """
        self._budget_bytes = size_bytes
        self.keep_budget()

    def keep_budget(self) -> None:
        """Lower the allocator's share if the process holds more outside of it than was set aside.
        Collective.

        Contexts, NCCL, cuBLAS and kernels that load when they are first called take memory from the
        card as training goes on. The cache is released then, because it may exceed the new share.
        The share is never raised: what a step needed once, the next one may need again.
        """
        outside, total = self._measure_outside()
        self.outside_bytes = max(self.outside_bytes, outside)
        if self._budget_bytes is None or self.outside_bytes <= self._set_aside_bytes:
            return
        self._set_aside_bytes = self.outside_bytes + GROWTH_BYTES
        torch.cuda.empty_cache()
        share = budget_share(self._budget_bytes, outside=self._set_aside_bytes, total=total)
        torch.cuda.set_per_process_memory_fraction(share)

    def limit_bytes(self) -> int:
        """Return the bytes that the allocator may reserve: the budget without what is set aside."""
        assert self._budget_bytes is not None
        return max(0, self._budget_bytes - self._set_aside_bytes)

    def release_cache(self) -> None:
        """Return cached blocks to the driver, so that the next size finds them whole."""
        torch.cuda.empty_cache()

    def process_peak_bytes(self) -> int:
        """Return the most that this process held since the last reset.

        It is exact or too high, since what lies outside the allocator only grows: it is counted as
        ``keep_budget`` last found it, also for an earlier moment.
        """
        return torch.cuda.max_memory_reserved() + self.outside_bytes

    def _measure_outside(self) -> tuple[int, int]:
        """Return what this process holds outside the allocator, and the card's bytes. Collective.

        NVML knows the first where it lists this process. Elsewhere it is what is used on the card and
        reserved by no rank there, in equal parts.
        """
        torch.cuda.synchronize()
        if dist.is_initialized():
            dist.barrier()  # Every rank has its context now, and nobody allocates.
        listed = self.note_process()
        here = _uuid()
        free, total = torch.cuda.mem_get_info()
        places: list[tuple[str, int]] = [(here, torch.cuda.memory_reserved())]
        if dist.is_initialized():  # Also where NVML knows: all ranks must take part.
            mine, places = places[0], [places[0]] * dist.get_world_size()
            dist.all_gather_object(places, mine)
        if listed:
            return listed, total
        return outside_bytes(total - free, [size for uuid, size in places if uuid == here]), total

    def retries(self) -> int:
        return int(torch.cuda.memory_stats()["num_alloc_retries"])

    def capacity_bytes(self) -> int:
        return torch.cuda.mem_get_info()[1]


def outside_bytes(used: int, reserved: Sequence[int]) -> int:
    """Return what each rank on a card holds outside its allocator, the same for each.

    ``used`` bytes of the card are taken; the allocators of the ranks on it have ``reserved`` of these.
    """
    return max(0, used - sum(reserved)) // len(reserved)


def budget_share(size_bytes: int, *, outside: int, total: int) -> float:
    """Return the fraction of a card of ``total`` bytes that a rank's allocator may use.

    The process then keeps within ``size_bytes``, of which ``outside`` are not the allocator's.
    """
    return min(1.0, max(0.0, (size_bytes - outside) / total))


def listed_bytes(uuid: str) -> int:
    """Return what NVML says that this process holds on the device; 0 where it does not tell.

    In containers NVML often lists other pids than the process knows, or no bytes. ``uuid`` is
    torch's, which lacks the prefix of NVML's.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # No such package, or no driver that answers.
        return 0
    found = 0
    try:
        for prefix in ("GPU-", "MIG-"):
            with suppress(pynvml.NVMLError):
                handle = pynvml.nvmlDeviceGetHandleByUUID(prefix + uuid)
                for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
                    if process.pid == os.getpid():
                        found = max(found, process.usedGpuMemory or 0)
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
    return found


def _uuid() -> str:
    return str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
