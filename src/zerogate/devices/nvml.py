"""NVML's readings of the devices while a launch runs, taken by a thread of the controller.

Memory is cheap to read and is read every 50 ms. Lists of processes, clocks and temperatures are not
cheap and are read once a second, lists also whenever the memory in use reaches a new high: a short
launch has its peak between two seconds, and gives the memory back before the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from zerogate.config.validation import from_json
from zerogate.devices.attribution import Reading, Source

MEMORY_SECONDS = 0.05
ANSWER_SECONDS = 10.0
"""Time after which a driver that has not answered counts as hung."""
LISTS_EVERY = 20
"""Number of memory readings per reading of everything else."""


@dataclass
class DeviceReadings:
    """Readings of one device ``before`` a launch, and the notable ones ``during`` it.

    Clocks and temperatures are 0 if the driver does not report them.
    """

    before: Reading
    during: list[Reading] = field(default_factory=list)
    reasons: int = 0
    temperature_celsius: int = 0
    most_sm_mhz: int = 0
    possible_sm_mhz: int = 0
    slowdown_celsius: int = 0

    def add(self, reading: Reading) -> None:
        """Keep the reading if it has a list of processes, or more memory than any before."""
        if reading.processes is not None or self.is_new_high(reading.used_bytes):
            self.during.append(reading)

    def is_new_high(self, used_bytes: int) -> bool:
        return used_bytes > max((one.used_bytes for one in self.during), default=-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchReadings:
    """NVML's readings of a launch's devices, by UUID.

    They are stored beside the records of the ranks, so that both can be replayed without a card.
    ``origin`` tells whether a machine recorded them or a person wrote them. ``source`` is the one that
    this host's launches take peaks from; None if none was chosen yet.
    """

    origin: Literal["recorded", "hand-made"]
    devices: dict[str, DeviceReadings]
    source: Source | None = None


def readings_path(folder: Path) -> Path:
    """Return the file in a launch's folder that holds its LaunchReadings."""
    return folder / "nvml.json"


def read_launch_readings(folder: Path) -> LaunchReadings | None:
    """Return what NVML told during the launch of ``folder``; None where nobody kept it.

    Raises ValueError where the file is damaged.
    """
    path = readings_path(folder)
    return from_json(LaunchReadings, path.read_bytes()) if path.exists() else None


class DeviceWatch:
    """Context in which a thread reads the devices with these UUIDs.

    ``devices`` leaves out those that NVML does not know or whose memory it does not report.
    """

    def __init__(self, uuids: Sequence[str]) -> None:
        self.devices: dict[str, DeviceReadings] = {}
        self._uuids = uuids
        self._handles: dict[str, Any] = {}
        self._opened = ExitStack()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="zerogate-nvml", daemon=True)

    def __enter__(self) -> DeviceWatch:
        handles = self._opened.enter_context(_opened(self._uuids))
        self.devices = {uuid: DeviceReadings(before=now) for uuid, now in _now(handles).items()}
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
        if not self._thread.is_alive():  # Else closing NVML would hang too.
            self._opened.close()

    def _watch(self) -> None:
        import pynvml

        for uuid, handle in self._handles.items():
            _read_limits(pynvml, handle, self.devices[uuid])
        count = 0
        while not self._over.wait(MEMORY_SECONDS):
            due = count % LISTS_EVERY == 0
            for uuid, handle in self._handles.items():
                device = self.devices[uuid]
                wanted = _always if due else device.is_new_high
                with suppress(pynvml.NVMLError):
                    device.add(_read(pynvml, handle, lists=wanted))
                if due:
                    _read_clocks(pynvml, handle, device)
            count += 1


@contextmanager
def _opened(uuids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Open NVML and yield its handles of the devices that it knows."""
    handles: dict[str, Any] = {}
    if not uuids:
        yield handles  # The cpu tier does not even import pynvml.
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


def current_readings(uuids: Sequence[str]) -> dict[str, Reading]:
    """Return current readings of the devices with these UUIDs, as far as NVML can read them."""
    with _opened(uuids) as handles:
        return _now(handles)


def _now(handles: Mapping[str, Any]) -> dict[str, Reading]:
    if not handles:
        return {}
    import pynvml

    found = {}
    for uuid, handle in handles.items():
        with suppress(pynvml.NVMLError):
            found[uuid] = _read(pynvml, handle, lists=_always)
    return found


def graphics_processes(uuid: str) -> list[int]:
    """Return the pids of processes that draw on the device, like a desktop or a browser.

    Readings leave them out: such processes always run, and they do not slow training down.
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


def _always(used_bytes: int) -> bool:
    return True


def _read(pynvml: Any, handle: Any, *, lists: Callable[[int], bool]) -> Reading:
    """Return a reading. ``lists`` says, for the bytes in use, whether to read the processes too."""
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
        used, kept = memory.used, memory.reserved
    except pynvml.NVMLError:  # Drivers before 510 include what they keep in what is used.
        used, kept = pynvml.nvmlDeviceGetMemoryInfo(handle).used, 0
    processes = None
    if lists(used):
        with suppress(pynvml.NVMLError):  # Not available in some containers, on vGPU and on WSL.
            found = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
            processes = {one.pid: one.usedGpuMemory for one in found}
    return Reading(used_bytes=used, driver_bytes=kept, processes=processes)


def _read_limits(pynvml: Any, handle: Any, device: DeviceReadings) -> None:
    """Read the limits of the device, which never change."""
    with suppress(pynvml.NVMLError):
        device.possible_sm_mhz = pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM)
    with suppress(pynvml.NVMLError):
        device.slowdown_celsius = pynvml.nvmlDeviceGetTemperatureThreshold(
            handle, pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
        )


def _read_clocks(pynvml: Any, handle: Any, device: DeviceReadings) -> None:
    try:
        device.reasons |= pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
    except pynvml.NVMLError:  # The call's name before driver 535.
        with suppress(pynvml.NVMLError):
            device.reasons |= pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    with suppress(pynvml.NVMLError):
        celsius = pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
        device.temperature_celsius = max(device.temperature_celsius, celsius)
    with suppress(pynvml.NVMLError):
        clock = pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)
        device.most_sm_mhz = max(clock, device.most_sm_mhz)
