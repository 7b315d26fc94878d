"""Device memory and time of one rank, with the same terms on CUDA and on CPU.

``peak`` and ``live`` are bytes held by torch's allocator for the rank's device. On the cpu tier that is
the emulated device (``worker.native``), which behaves like a card: it has a peak, a reset and a budget.
Exceeding the budget raises ``torch.OutOfMemoryError``.
"""

from __future__ import annotations

import gc
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch

from zerogate.protocol.record import HostMemory, Phase, PhaseMemory
from zerogate.worker import emulated_device
from zerogate.worker.native_library import NativeLibrary


class MemoryMeter(Protocol):
    """Meter of the bytes that torch's allocator holds on the rank's device, and keeper of its budget.

    ``grows_outside``: libraries take memory beside the allocator as training goes on.
    """

    source: str
    grows_outside: bool

    def live_bytes(self) -> int: ...
    def peak_bytes(self) -> int: ...
    def further_peaks(self) -> dict[str, int]: ...
    def host_memory(self) -> HostMemory | None: ...
    def crossings(self) -> Counter[str] | None: ...
    def reset_peak(self) -> None: ...
    def set_budget(self, size_bytes: int, floor_bytes: int = 0) -> None: ...
    def keep_budget(self) -> None: ...
    def limit_bytes(self) -> int: ...
    def release_cache(self) -> None: ...
    def note_process(self) -> int: ...
    def process_peak_bytes(self) -> int: ...
    def retries(self) -> int: ...
    def capacity_bytes(self) -> int: ...


class EmulatedMemoryMeter:
    """Meter of the emulated device, which also counts what torch holds on the host."""

    source = emulated_device.NAME
    grows_outside = False

    def __init__(self, library: NativeLibrary) -> None:
        self._library = library
        self._limit_bytes = self.capacity_bytes()

    def live_bytes(self) -> int:
        return self._library.device.live_bytes()

    def peak_bytes(self) -> int:
        return self._library.device.peak_bytes()

    def further_peaks(self) -> dict[str, int]:
        return {}  # Nothing is rounded, kept for a stream or cached.

    def host_memory(self) -> HostMemory:
        host, pinned = self._library.host, self._library.pinned
        return HostMemory(
            peak_bytes=host.peak_bytes(),
            live_bytes=host.live_bytes(),
            peak_pinned_bytes=pinned.peak_bytes(),
            pinned_bytes=pinned.live_bytes(),
        )

    def crossings(self) -> Counter[str]:
        """Return what has crossed between host and device so far, by the names of the record."""
        return Counter(
            copied_to_device_bytes=self._library.bytes_to_device(),
            copied_to_host_bytes=self._library.bytes_to_host(),
            host_waits=self._library.waits(),
        )

    def reset_peak(self) -> None:
        for pool in (self._library.device, self._library.host, self._library.pinned):
            pool.reset_peak()

    def set_budget(self, size_bytes: int, floor_bytes: int = 0) -> None:
        """Raise ``torch.OutOfMemoryError`` from now on when live bytes would exceed ``size_bytes``.

        ``floor_bytes``, held before the model, do not count.
        """
        self._limit_bytes = floor_bytes + size_bytes
        self._library.device.set_budget(self._limit_bytes)

    def keep_budget(self) -> None:
        """Do nothing: every byte that counts is the allocator's."""

    def limit_bytes(self) -> int:
        """Return the bytes that the allocator may hold."""
        return self._limit_bytes

    def release_cache(self) -> None:
        """Do nothing: nothing is cached."""

    def note_process(self) -> int:
        return 0  # There is no driver to ask.

    def process_peak_bytes(self) -> int:
        return 0  # The process holds the host's memory too, which has no budget.

    def retries(self) -> int:
        return 0  # Nothing is cached, so nothing can be given back.

    def capacity_bytes(self) -> int:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class MemoryPhases:
    """Peak and live bytes by phase, above what was held when this object was created.

    Only ``collect_garbage`` collects garbage while phases run. Objects in reference cycles hold tensors
    until a collection, so automatic collections would change peaks at random.
    """

    def __init__(self, meter: MemoryMeter) -> None:
        self.meter = meter
        self.phases: dict[Phase, PhaseMemory] = {}
        gc.disable()
        self.collect_garbage(keep=True)
        self.floor_bytes = meter.live_bytes()

    @property
    def live_bytes(self) -> int:
        """Bytes held on the device now."""
        return self.meter.live_bytes() - self.floor_bytes

    @property
    def host_bytes(self) -> int | None:
        """Bytes that torch holds on the host now, pinned ones too; None if they are not known."""
        held = self.meter.host_memory()
        return held.live_bytes + held.pinned_bytes if held else None

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        self.collect_garbage(keep=True)
        self.meter.reset_peak()
        yield
        peak = self.meter.peak_bytes() - self.floor_bytes
        further = self.meter.further_peaks()
        self.meter.note_process()
        self.collect_garbage()
        self.phases[name] = PhaseMemory(
            peak_allocated_bytes=peak,
            live_bytes=self.meter.live_bytes() - self.floor_bytes,
            host=self.meter.host_memory(),
            **further,
        )

    def collect_garbage(self, *, keep: bool = False) -> None:
        """Collect garbage. With ``keep``, later collections skip what survives this one, which makes
        the collection after every step cheap.
        """
        gc.collect()
        if keep:
            gc.freeze()


class Clock:
    """Clock with marks. On CUDA they are events on the current stream, read at the end."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[float | torch.cuda.Event] = []

    def mark(self) -> None:
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def laps(self) -> list[float]:
        """Return the seconds between each two neighbouring marks. Waits for the device."""
        if self._cuda:
            torch.cuda.synchronize()
        return [
            _between(start, end) for start, end in zip(self._marks, self._marks[1:], strict=False)
        ]


def _between(start: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
    if isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
        return float(start.elapsed_time(end)) / 1000.0
    assert isinstance(start, float)
    assert isinstance(end, float)
    return end - start


def wall_clock(device: torch.device) -> float:
    """Return ``perf_counter`` after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def canary_seconds(rounds: int = 7) -> float:
    """Return the seconds of a fixed piece of CPU work, the median of ``rounds``.

    They tell how fast this core is now. Seconds of training are compared with a baseline only if the
    canary agrees with the baseline's: a slow neighbour on a shared machine is no regression.
    """
    matrix = torch.full((256, 256), 1.0 / 256)
    laps = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(8):
            matrix = matrix @ matrix
        laps.append(time.perf_counter() - start)
    return sorted(laps)[rounds // 2]


def reset_peak_host_bytes() -> None:
    """Start a new peak of resident memory (Linux: VmHWM through clear_refs)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # Not permitted here: the peak then covers the whole process.


def peak_host_bytes() -> int:
    """Return the peak resident memory since the last reset, in bytes; 0 if the kernel has no VmHWM.

    ``ru_maxrss`` does not serve: a child starts with its parent's.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
