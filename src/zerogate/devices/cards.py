"""The CUDA devices of this machine, asked of the driver (NVML) and not of CUDA."""

from __future__ import annotations

import functools
import os
import re
from contextlib import suppress


@functools.cache
def _asked() -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """The driver's version, or why it does not answer, and name and UUID of each of its devices."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return "", str(error), ()
    devices = []
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            with suppress(pynvml.NVMLError):  # A card that fell off the bus is no device.
                one = pynvml.nvmlDeviceGetHandleByIndex(index)
                name, uuid = pynvml.nvmlDeviceGetName(one), pynvml.nvmlDeviceGetUUID(one)
                devices.append((str(name), str(uuid)))
        return str(pynvml.nvmlSystemGetDriverVersion()), "", tuple(devices)
    except pynvml.NVMLError as error:
        return "", str(error), ()
    finally:
        pynvml.nvmlShutdown()


def driver() -> tuple[str, str]:
    """The NVIDIA driver's version and "", or "" and why it does not answer."""
    version, why, _ = _asked()
    return version, why


def _devices() -> tuple[tuple[str, str], ...]:
    """Name and UUID of each of the machine's devices; empty without a driver."""
    return _asked()[2]


def cuda_device_names() -> tuple[str, ...]:
    """Names of the devices that CUDA would show; empty without a driver."""
    return _visible([name for name, _ in _devices()], os.environ.get("CUDA_VISIBLE_DEVICES"))


def cuda_device_uuids() -> tuple[str, ...]:
    """UUIDs of the devices that CUDA would show; empty without a driver."""
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = _visible([uuid for _, uuid in _devices()], setting)
    entries = [part.strip() for part in (setting or "").split(",") if part.strip()]
    named = {
        index: entry for index, entry in enumerate(entries) if entry.startswith(("GPU-", "MIG-"))
    }
    return tuple(named.get(index, uuid) for index, uuid in enumerate(found))


def _visible(names: list[str], setting: str | None) -> tuple[str, ...]:
    """Those of the machine's devices that CUDA shows, in its order.

    CUDA stops at the first entry that is no device. UUIDs are counted, not looked up.
    """
    if setting is None:
        return tuple(names)
    shown: list[str] = []
    for entry in filter(None, (part.strip() for part in setting.split(","))):
        if entry.startswith(("GPU-", "MIG-")):
            index = len(shown)
        elif entry.isdigit():
            index = int(entry)
        else:
            break
        if index >= len(names):
            break
        shown.append(names[index])
    return tuple(shown)


def cards_key(world_size: int) -> str:
    """``nvidia-h200-x2``: the first ``world_size`` devices, from fields that never change."""
    names = cuda_device_names()
    model = re.sub(r"[^a-z0-9]+", "-", (names[0] if names else "no-gpu").lower()).strip("-")
    return f"{model}-x{world_size}"
