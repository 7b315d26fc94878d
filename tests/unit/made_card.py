"""A card made by hand, in place of ``torch.cuda``: a caching allocator, and memory outside of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from tests.made_nvml import MadeNVML

UUID = "0badcafe-0000"
TOTAL_BYTES = 100_000


class MadeCard:
    """One rank's card. ``outside`` grows as the test says; ``highest`` is the most that was held."""

    def __init__(self) -> None:
        self.live = self.cached = self.peak = self.peak_reserved = self.outside = 0
        self.highest = self.retries = 0
        self.limit = TOTAL_BYTES

    @property
    def reserved(self) -> int:
        return self.live + self.cached

    def load(self, size: int) -> None:
        """Take memory outside the allocator, as a kernel does that is called for the first time."""
        self.outside += size
        self._note()

    @contextmanager
    def block(self, size: int) -> Iterator[None]:
        from_cache = min(size, self.cached)
        if self.reserved - from_cache + size > self.limit:
            self.retries += 1
            self.cached = from_cache = 0
            if self.live + size > self.limit:
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size}")
        self.cached -= from_cache
        self.live += size
        self._note()
        yield
        self.live -= size
        self.cached += size

    def _note(self) -> None:
        self.peak = max(self.peak, self.live)
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        self.highest = max(self.highest, self.reserved + self.outside)

    def empty_cache(self) -> None:
        self.cached = 0

    def reset_peak(self) -> None:
        self.peak, self.peak_reserved = self.live, self.reserved

    def set_share(self, share: float) -> None:
        self.limit = round(share * TOTAL_BYTES)

    def stats(self) -> dict[str, int]:
        peaks = {"requested": self.peak, "active": self.peak, "reserved": self.peak_reserved}
        counts = {"num_alloc_retries": self.retries, "num_ooms": 0}
        return counts | {f"{name}_bytes.all.peak": peak for name, peak in peaks.items()}

    def put_in_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answers: dict[str, Callable[..., object]] = {
            "current_device": lambda: 0,
            "get_device_properties": lambda device: SimpleNamespace(uuid=UUID, name="made"),
            "synchronize": lambda: None,
            "empty_cache": self.empty_cache,
            "memory_allocated": lambda: self.live,
            "max_memory_allocated": lambda: self.peak,
            "memory_reserved": lambda: self.reserved,
            "max_memory_reserved": lambda: self.peak_reserved,
            "reset_peak_memory_stats": self.reset_peak,
            "memory_stats": self.stats,
            "host_memory_stats": dict,
            "mem_get_info": lambda: (TOTAL_BYTES - self.reserved - self.outside, TOTAL_BYTES),
            "set_per_process_memory_fraction": self.set_share,
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, answer)


class RankNVML(MadeNVML):
    """NVML as a rank asks it: it lists this process, or in a container the host's pids."""

    uuids = (f"GPU-{UUID}",)
    name = "made"
    total_bytes = TOTAL_BYTES

    def __init__(self, card: MadeCard, *, container: bool = False) -> None:
        super().__init__()
        self.card = card
        self.pid = os.getpid() + container

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in self.uuids:
            raise self.NVMLError(6)
        return uuid

    def processes(self, uuid: str) -> dict[int, int]:
        return {self.pid: self.card.reserved + self.card.outside}
