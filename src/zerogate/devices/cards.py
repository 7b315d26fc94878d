"""The CUDA devices of this machine, as the driver (NVML) reports them, without CUDA."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from zerogate.protocol.units import GIB

FIRST_WITH_BF16 = (8, 0)
"""Compute capability of the first cards with bf16."""


@dataclass(frozen=True, slots=True)
class Card:
    """A CUDA device: a card, or a MIG slice of one.

    ``total_bytes`` includes what the driver keeps. ``has_bf16`` is true if its matrix units support
    bf16: from compute capability 8.0 on (CUDA's programming guide), or if the driver does not report
    the capability.
    """

    name: str
    uuid: str
    total_bytes: int
    has_bf16: bool = True
    reserved_bytes: int = 0

    @property
    def usable_bytes(self) -> int:
        """The device's memory as CUDA shows it, without what the driver keeps for itself."""
        return self.total_bytes - self.reserved_bytes


@functools.cache
def _query_driver(setting: str | None) -> tuple[str, str, tuple[Card, ...]]:
    """Return the driver's version, why it does not answer, and the devices that CUDA would show.

    The version or the reason is empty. ``setting`` is the value of CUDA_VISIBLE_DEVICES.
    """
    try:
        import pynvml
    except ModuleNotFoundError:
        return "", "nvidia-ml-py is not installed", ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return "", str(error), ()
    try:
        cards: dict[str, Card | None] = {}
        for index in range(pynvml.nvmlDeviceGetCount()):
            with suppress(pynvml.NVMLError):  # A card that fell off the bus is not a device.
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                cards[str(pynvml.nvmlDeviceGetUUID(handle))] = _device(pynvml, handle)
        version = str(pynvml.nvmlSystemGetDriverVersion())
        shown = cards.values() if setting is None else _shown(pynvml, cards, setting)
        return version, "", _at_once([card for card in shown if card is not None])
    except pynvml.NVMLError as error:
        return "", str(error), ()
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _device(pynvml: Any, handle: Any) -> Card | None:
    """Return the device that CUDA sees in a card: the card itself, or its first MIG slice.

    None if the card is in MIG mode and has no slice yet.
    """
    mode = 0
    with suppress(pynvml.NVMLError):  # Most cards do not support MIG.
        mode, _ = pynvml.nvmlDeviceGetMigMode(handle)
    if mode != pynvml.NVML_DEVICE_MIG_ENABLE:
        return _card(pynvml, handle)
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        with suppress(pynvml.NVMLError):  # A place without a slice.
            return _card(pynvml, pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))
    return None


def _card(pynvml: Any, handle: Any) -> Card:
    capability = FIRST_WITH_BF16
    with suppress(pynvml.NVMLError):
        capability = tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle))
    reserved = 0
    with suppress(pynvml.NVMLError):  # Drivers before 510 do not report it.
        version = pynvml.nvmlMemory_v2
        reserved = int(pynvml.nvmlDeviceGetMemoryInfo(handle, version=version).reserved)
    return Card(
        name=str(pynvml.nvmlDeviceGetName(handle)),
        uuid=str(pynvml.nvmlDeviceGetUUID(handle)),
        total_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        has_bf16=capability >= FIRST_WITH_BF16,
        reserved_bytes=reserved,
    )


def _shown(pynvml: Any, cards: Mapping[str, Card | None], setting: str) -> Sequence[Card | None]:
    """Return those of ``cards`` (by the card's UUID) that CUDA shows for ``setting``, in its order.

    CUDA stops at the first entry that is not a device, and shows none if an entry names a device
    again. A UUID may be cut short if it still names one device.
    """
    shown: list[Card | None] = []
    for entry in (part.strip() for part in setting.split(",")):
        found: list[Card | None] = []
        if entry.startswith("MIG-"):  # NVML does not count a slice as a device.
            with suppress(pynvml.NVMLError):
                found = [_card(pynvml, pynvml.nvmlDeviceGetHandleByUUID(entry))]
        elif entry.startswith("GPU-"):
            found = [card for uuid, card in cards.items() if uuid.startswith(entry)]
        elif entry.isascii() and entry.isdecimal():
            found = list(cards.values())[int(entry) :][:1]
        if len(found) != 1 or found[0] is None:
            break
        if found[0] in shown:
            return []
        shown += found
    return shown


def _at_once(cards: Sequence[Card]) -> tuple[Card, ...]:
    """Return the devices that one process sees: a single MIG slice, and with it no whole card
    (NVIDIA's MIG user guide, CUDA device enumeration).
    """
    slices = [card for card in cards if card.uuid.startswith("MIG-")]
    return tuple(slices[:1] or cards)


def driver() -> tuple[str, str]:
    """Return the NVIDIA driver's version and "", or "" and why it does not answer."""
    version, why, _ = _query_driver(os.environ.get("CUDA_VISIBLE_DEVICES"))
    return version, why


def cuda_devices() -> tuple[Card, ...]:
    """Return the devices that CUDA would show; empty without a driver."""
    return _query_driver(os.environ.get("CUDA_VISIBLE_DEVICES"))[2]


def cards_key(number: int) -> str:
    """Return models and memory of the first ``number`` devices, like ``nvidia-h200-141g-x2``.

    The fields never change. Memory is rounded up to whole GiB: the remainder differs by driver.
    """
    devices = cuda_devices()[:number]
    if not devices:
        return f"no-gpu-x{number}"
    return f"{'-and-'.join(dict.fromkeys(map(_key, devices)))}-x{number}"


def _key(card: Card) -> str:
    model = re.sub(r"[^a-z0-9]+", "-", card.name.lower()).strip("-")
    model = f"nvidia-{model.removeprefix('nvidia-')}"  # Older drivers leave the maker out.
    return f"{model}-{-(-card.total_bytes // GIB)}g"
