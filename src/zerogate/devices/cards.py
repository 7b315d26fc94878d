"""The CUDA devices of this machine, asked of the driver (NVML) and not of CUDA."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

GIB = 2**30
FIRST_WITH_BF16 = (8, 0)
"""Compute capability."""


@dataclass(frozen=True, slots=True)
class Card:
    """A CUDA device: a card, or a MIG slice of one. ``total_bytes`` with what the driver keeps;
    ``has_bf16`` where its matrix units know it: from compute capability 8.0 on (CUDA's programming
    guide), and where the driver does not say.
    """

    name: str
    uuid: str
    total_bytes: int
    has_bf16: bool = True


@functools.cache
def _asked(setting: str | None) -> tuple[str, str, tuple[Card, ...]]:
    """The driver's version, or why it does not answer, and the devices that CUDA would show with
    CUDA_VISIBLE_DEVICES at ``setting``.
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
            with suppress(pynvml.NVMLError):  # A card that fell off the bus is no device.
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
    """What CUDA makes of a card: the card, or the first of the MIG slices that it is cut into; None
    where it is to be cut and has no slice yet.
    """
    mode = 0
    with suppress(pynvml.NVMLError):  # Most cards know no MIG.
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
    return Card(
        name=str(pynvml.nvmlDeviceGetName(handle)),
        uuid=str(pynvml.nvmlDeviceGetUUID(handle)),
        total_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        has_bf16=capability >= FIRST_WITH_BF16,
    )


def _shown(pynvml: Any, cards: Mapping[str, Card | None], setting: str) -> Sequence[Card | None]:
    """Those of the machine's devices, by their card's UUID, that CUDA shows, in its order; it stops at
    the first entry that is no device, and shows none where one is named twice. A UUID may be cut short
    where that is still one device's.
    """
    shown: list[Card | None] = []
    for entry in (part.strip() for part in setting.split(",")):
        found: list[Card | None] = []
        if entry.startswith("MIG-"):  # A slice is no device of its own to NVML's count.
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
    """Those that one process sees: a single MIG slice, and then no whole card (NVIDIA's MIG user
    guide, CUDA device enumeration).
    """
    slices = [card for card in cards if card.uuid.startswith("MIG-")]
    return tuple(slices[:1] or cards)


def driver() -> tuple[str, str]:
    """The NVIDIA driver's version and "", or "" and why it does not answer."""
    version, why, _ = _asked(os.environ.get("CUDA_VISIBLE_DEVICES"))
    return version, why


def cuda_devices() -> tuple[Card, ...]:
    """The devices that CUDA would show; empty without a driver."""
    return _asked(os.environ.get("CUDA_VISIBLE_DEVICES"))[2]


def cards_key(number: int) -> str:
    """``nvidia-h200-141g-x2``: models and memory of the first ``number`` devices, from fields that
    never change. Memory is rounded up to whole GiB: what is left of it differs by a driver's whim.
    """
    devices = cuda_devices()[:number]
    if not devices:
        return f"no-gpu-x{number}"
    return f"{'-and-'.join(dict.fromkeys(map(_key, devices)))}-x{number}"


def _key(card: Card) -> str:
    model = re.sub(r"[^a-z0-9]+", "-", card.name.lower()).strip("-")
    model = f"nvidia-{model.removeprefix('nvidia-')}"  # Older drivers leave the maker out.
    return f"{model}-{-(-card.total_bytes // GIB)}g"
