"""An NVML made by hand, in place of the module ``pynvml``: devices that nobody has."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pynvml as real


class MadeNVML(SimpleNamespace):
    """Healthy devices named ``uuids``, each with ``total_bytes``; ``processes`` says what is on one."""

    NVMLError = real.NVMLError
    nvmlMemory_v2 = real.nvmlMemory_v2
    NVML_DEVICE_MIG_ENABLE = real.NVML_DEVICE_MIG_ENABLE
    NVML_TEMPERATURE_GPU = NVML_CLOCK_SM = NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 0

    uuids: Sequence[str]
    name: str
    total_bytes: int
    idle_bytes = 0
    driver_bytes = 2**20
    reasons = 0

    def processes(self, uuid: str) -> dict[int, int]:
        """Bytes by pid."""
        raise NotImplementedError

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.1"

    def nvmlDeviceGetCount(self) -> int:
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return self.uuids[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        assert uuid in self.uuids
        return uuid

    def nvmlDeviceGetUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetName(self, uuid: str) -> str:
        return self.name

    def nvmlDeviceGetCudaComputeCapability(self, uuid: str) -> list[int]:
        return [9, 0]

    def nvmlDeviceGetMigMode(self, uuid: str) -> list[int]:
        raise self.NVMLError(real.NVML_ERROR_NOT_SUPPORTED)

    def nvmlDeviceGetMemoryInfo(self, uuid: str, version: Any = None) -> SimpleNamespace:
        used = self.idle_bytes + sum(self.processes(uuid).values())
        return SimpleNamespace(total=self.total_bytes, used=used, reserved=self.driver_bytes)

    def nvmlDeviceGetComputeRunningProcesses(self, uuid: str) -> list[SimpleNamespace]:
        found = self.processes(uuid).items()
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in found]

    def nvmlDeviceGetGraphicsRunningProcesses(self, uuid: str) -> list[SimpleNamespace]:
        return []

    def nvmlDeviceGetCurrentClocksEventReasons(self, uuid: str) -> int:
        return self.reasons

    def nvmlDeviceGetTemperature(self, uuid: str, kind: int) -> int:
        return 61

    def nvmlDeviceGetTemperatureThreshold(self, uuid: str, kind: int) -> int:
        return 87

    def nvmlDeviceGetMaxClockInfo(self, uuid: str, kind: int) -> int:
        return 1980

    def nvmlDeviceGetClockInfo(self, uuid: str, kind: int) -> int:
        return 1755
