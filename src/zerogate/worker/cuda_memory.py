"""A rank's CUDA device: statistics of the caching allocator, and a budget like a smaller card's."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist

from zerogate.protocol.record import Device

PEAKS = ("requested", "active", "reserved")


class CudaMemoryMeter:
    """Meter that reads the CUDA caching allocator's statistics for the current device."""

    source = "cuda_allocator"

    def __init__(self) -> None:
        self._most_reserved = 0
        self._share = 1.0

    def device(self) -> Device:
        """Return this rank's device and the peak that its allocator reserved there in all phases."""
        found = torch.cuda.get_device_properties(torch.cuda.current_device())
        stats = torch.cuda.memory_stats()
        return Device(
            uuid=str(found.uuid),
            name=found.name,
            pid=os.getpid(),
            peak_reserved_bytes=max(self._most_reserved, torch.cuda.max_memory_reserved()),
            allocator_retries=int(stats["num_alloc_retries"]),
            allocator_ooms=int(stats["num_ooms"]),
            pinned_bytes=int(torch.cuda.host_memory_stats().get("allocated_bytes.peak", 0)),
        )

    def live_bytes(self) -> int:
        return torch.cuda.memory_allocated()

    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated()

    def further_peaks(self) -> dict[str, int]:
        """Return the peaks since the last reset, in bytes, by field of PhaseMemory."""
        stats = torch.cuda.memory_stats()
        return {f"peak_{name}_bytes": int(stats[f"{name}_bytes.all.peak"]) for name in PEAKS}

    def reset_peak(self) -> None:
        self._most_reserved = max(self._most_reserved, torch.cuda.max_memory_reserved())
        torch.cuda.reset_peak_memory_stats()

    def set_budget(self, size_bytes: int) -> None:
        """Limit this process to ``size_bytes`` of the card. Collective.

        The budget covers what the process already holds outside the allocator (CUDA's context, NCCL).
        The allocator may use the rest.
        """
        dist_known = dist.is_initialized()
        if dist_known:
            dist.barrier()  # Afterwards every rank has its CUDA context.
        free, total = torch.cuda.mem_get_info()
        here = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
        places: list[tuple[str, int]] = [(here, torch.cuda.memory_reserved())]
        if dist_known:
            mine, places = places[0], [places[0]] * dist.get_world_size()
            dist.all_gather_object(places, mine)
        reserved = [size for uuid, size in places if uuid == here]
        self._share = budget_share(size_bytes, used=total - free, reserved=reserved, total=total)
        torch.cuda.set_per_process_memory_fraction(self._share)

    def limit_bytes(self) -> int:
        """Return the bytes that the allocator may reserve: the budget without what lies outside it."""
        return int(self._share * self.capacity_bytes())

    def release_cache(self) -> None:
        """Return cached blocks to the driver, so that the next size finds them whole."""
        torch.cuda.empty_cache()

    def retries(self) -> int:
        return int(torch.cuda.memory_stats()["num_alloc_retries"])

    def capacity_bytes(self) -> int:
        return torch.cuda.mem_get_info()[1]


def budget_share(size_bytes: int, *, used: int, reserved: list[int], total: int) -> float:
    """Return the fraction of a card that a rank's allocator may use to keep within ``size_bytes``.

    ``used`` of the card's ``total`` bytes are taken; the allocators of the ranks on it have
    ``reserved`` of these. The rest is contexts and libraries, the same for each rank.
    """
    outside = max(0, used - sum(reserved)) // len(reserved)
    return min(1.0, max(0.0, (size_bytes - outside) / total))
