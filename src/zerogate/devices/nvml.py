"""The devices while a launch runs, as NVML tells: read by a thread of the controller's.

Memory is cheap to ask for and is read every 50 ms; lists of processes, clocks and temperatures are
not, and are read once a second. The default allocator gives nothing back while training, so what a
process has only climbs, and the last list has its peak.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from zerogate.devices.attribution import Reading

MEMORY_SECONDS = 0.05
ANSWER_SECONDS = 10.0
"""After which a driver that has not answered will not."""
LISTS_EVERY = 20
"""Readings of memory for one of everything else."""


@dataclass
class Watched:
    """One device: what it was before the launch, and what stood out during it. What the driver does not
    tell of clocks and temperatures is 0.
    """

    before: Reading
    during: list[Reading] = field(default_factory=list)
    reasons: int = 0
    temperature_celsius: int = 0
    least_sm_mhz: int | None = None
    most_sm_mhz: int = 0
    possible_sm_mhz: int = 0
    slowdown_celsius: int = 0

    def add(self, reading: Reading) -> None:
        """Keep it if it has a list of processes, or more memory than any before."""
        most = max((one.used_bytes for one in self.during), default=-1)
        if reading.processes is not None or reading.used_bytes > most:
            self.during.append(reading)


class DeviceWatch:
    """Reads the devices with these UUIDs from ``with`` to its end. Devices that NVML does not know, or
    cannot tell the memory of, are not in ``devices``.
    """

    def __init__(self, uuids: Sequence[str]) -> None:
        self.devices: dict[str, Watched] = {}
        self._uuids = uuids
        self._handles: dict[str, Any] = {}
        self._opened = ExitStack()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="zerogate-nvml", daemon=True)

    def __enter__(self) -> DeviceWatch:
        handles = self._opened.enter_context(_opened(self._uuids))
        self.devices = {uuid: Watched(before=now) for uuid, now in _now(handles).items()}
        self._handles = {uuid: handles[uuid] for uuid in self.devices}
        if self._handles:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._handles:
            self._thread.join(ANSWER_SECONDS)
        if not self._thread.is_alive():  # Else the driver hangs, and would again.
            self._opened.close()

    def _watch(self) -> None:
        import pynvml

        for uuid, handle in self._handles.items():
            _read_limits(pynvml, handle, self.devices[uuid])
        count = 0
        while not self._over.wait(MEMORY_SECONDS):
            lists = count % LISTS_EVERY == 0
            for uuid, handle in self._handles.items():
                with suppress(pynvml.NVMLError):
                    self.devices[uuid].add(_read(pynvml, handle, lists=lists))
                if lists:
                    _read_clocks(pynvml, handle, self.devices[uuid])
            count += 1


@contextmanager
def _opened(uuids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """NVML, open meanwhile: its handles of those of the devices that it knows."""
    handles: dict[str, Any] = {}
    if not uuids:
        yield handles  # Not even imported on the cpu tier.
        return
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield handles
        return
    try:
        for uuid in uuids:
            with suppress(pynvml.NVMLError):
                handles[uuid] = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        yield handles
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def readings(uuids: Sequence[str]) -> dict[str, Reading]:
    """The devices with these UUIDs as they are now; those that NVML can tell of."""
    with _opened(uuids) as handles:
        return _now(handles)


def _now(handles: Mapping[str, Any]) -> dict[str, Reading]:
    if not handles:
        return {}
    import pynvml

    found = {}
    for uuid, handle in handles.items():
        with suppress(pynvml.NVMLError):
            found[uuid] = _read(pynvml, handle, lists=True)
    return found


def graphics_processes(uuid: str) -> list[int]:
    """Pids of what draws on the device: a desktop, a browser. They are not in its readings, since they
    are there all day and cost seconds nothing.
    """
    with _opened([uuid]) as handles:
        import pynvml

        with suppress(pynvml.NVMLError):
            return [
                one.pid
                for handle in handles.values()
                for one in pynvml.nvmlDeviceGetGraphicsRunningProcesses(handle)
            ]
    return []


def _read(pynvml: Any, handle: Any, *, lists: bool) -> Reading:
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
        used, kept = memory.used, memory.reserved
    except pynvml.NVMLError:  # Drivers before 510: what they keep is in what is used.
        used, kept = pynvml.nvmlDeviceGetMemoryInfo(handle).used, 0
    processes = None
    if lists:
        with suppress(pynvml.NVMLError):  # Not told in some containers, on vGPU, on WSL.
            found = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
            processes = {one.pid: one.usedGpuMemory for one in found}
    return Reading(used_bytes=used, driver_bytes=kept, processes=processes)


def _read_limits(pynvml: Any, handle: Any, device: Watched) -> None:
    """What never changes."""
    with suppress(pynvml.NVMLError):
        device.possible_sm_mhz = pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM)
    with suppress(pynvml.NVMLError):
        device.slowdown_celsius = pynvml.nvmlDeviceGetTemperatureThreshold(
            handle, pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
        )


def _read_clocks(pynvml: Any, handle: Any, device: Watched) -> None:
    try:
        device.reasons |= pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
    except pynvml.NVMLError:  # Its name before driver 535.
        with suppress(pynvml.NVMLError):
            device.reasons |= pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    with suppress(pynvml.NVMLError):
        celsius = pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
        device.temperature_celsius = max(device.temperature_celsius, celsius)
    with suppress(pynvml.NVMLError):
        clock = pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)
        device.least_sm_mhz = min(clock, device.least_sm_mhz or clock)
        device.most_sm_mhz = max(clock, device.most_sm_mhz)
