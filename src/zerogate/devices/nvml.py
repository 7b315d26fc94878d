"""The devices while a launch runs, as NVML tells: read by a thread of the controller's.

Memory is cheap to ask for and is read every 50 ms; lists of processes, clocks and temperatures are
not, and are read once a second. The default allocator gives nothing back while training, so what a
process has only climbs, and the last list has its peak.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from zerogate.devices.ladder import Reading

MEMORY_SECONDS = 0.05
LISTS_EVERY = 20
"""Readings of memory for one of everything else."""


@dataclass
class Watched:
    """One device: what it was before the launch, and what stood out during it."""

    before: Reading
    during: list[Reading] = field(default_factory=list)
    reasons: int = 0
    temperature_celsius: int = 0
    least_sm_mhz: int | None = None

    def add(self, reading: Reading) -> None:
        """Keep it if it has a list of processes, or more memory than any before."""
        most = max((one.used_bytes for one in self.during), default=-1)
        if reading.processes is not None or reading.used_bytes > most:
            self.during.append(reading)


class DeviceWatch:
    """Reads the devices with these UUIDs from ``with`` to its end. Devices that NVML does not know, or
    cannot tell the memory of, are not in ``devices``.
    """

    def __init__(self, uuids: Sequence[str], *, keep_reading: bool = True) -> None:
        self.devices: dict[str, Watched] = {}
        self._uuids = uuids
        self._keep_reading = keep_reading
        self._handles: dict[str, Any] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="zerogate-nvml", daemon=True)

    def __enter__(self) -> DeviceWatch:
        if not self._uuids:
            return self
        import pynvml

        with suppress(pynvml.NVMLError):
            pynvml.nvmlInit()
            for uuid in self._uuids:
                with suppress(pynvml.NVMLError):
                    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
                    self.devices[uuid] = Watched(before=_read(pynvml, handle, lists=True))
                    self._handles[uuid] = handle
        if self._handles and self._keep_reading:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._uuids:
            return
        import pynvml

        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()

    def _watch(self) -> None:
        import pynvml

        count = 0
        while not self._over.wait(MEMORY_SECONDS):
            lists = count % LISTS_EVERY == 0
            for uuid, handle in self._handles.items():
                with suppress(pynvml.NVMLError):
                    self.devices[uuid].add(_read(pynvml, handle, lists=lists))
                if lists:
                    _read_clocks(pynvml, handle, self.devices[uuid])
            count += 1


def readings(uuids: Sequence[str]) -> dict[str, Reading]:
    """The devices with these UUIDs as they are now; those that NVML can tell of."""
    with DeviceWatch(uuids, keep_reading=False) as watch:
        return {uuid: device.before for uuid, device in watch.devices.items()}


def graphics_processes(uuid: str) -> list[int]:
    """Pids of what draws on the device: a desktop, a browser. They are not in its readings, since they
    are there all day and cost seconds nothing.
    """
    import pynvml

    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            return [one.pid for one in pynvml.nvmlDeviceGetGraphicsRunningProcesses(handle)]
        finally:
            pynvml.nvmlShutdown()
    return []


def _read(pynvml: Any, handle: Any, *, lists: bool) -> Reading:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    processes = None
    if lists:
        found = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        processes = {one.pid: one.usedGpuMemory for one in found}
    return Reading(used_bytes=memory.used, driver_bytes=memory.reserved, processes=processes)


def _read_clocks(pynvml: Any, handle: Any, device: Watched) -> None:
    with suppress(pynvml.NVMLError):
        device.reasons |= pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
    with suppress(pynvml.NVMLError):
        celsius = pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
        device.temperature_celsius = max(device.temperature_celsius, celsius)
    with suppress(pynvml.NVMLError):
        clock = pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)
        device.least_sm_mhz = min(clock, device.least_sm_mhz or clock)
