"""The CUDA devices of this machine, as the driver tells them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from zerogate.devices import cards
from zerogate.devices.cards import cards_key, cuda_devices
from zerogate.devices.cards import driver as nvidia_driver

H200, A100 = "NVIDIA H200", "NVIDIA A100-SXM4-80GB"

TURING = "NVIDIA TITAN RTX"
RTX = "NVIDIA GeForce RTX(TM) 4090 "
MEMORY_BYTES = {
    H200: 150_754_820_096,
    A100: 85_899_345_920,
    RTX: 25_757_220_864,
    TURING: 25_769_803_776,
}
"""As drivers tell it, after what nvidia-smi shows of these cards: 143771, 81920 and 24564 MiB."""

MIG, MIG_NAME = "MIG-5c89", "NVIDIA H200 MIG 1g.18gb"
CUT, TO_BE_CUT = "a card cut into slices", "a card to be cut, without slices yet"
LOST = "a card that fell off the bus"

RESERVED_BYTES = 644_939_776
"""What an H200's driver keeps for itself (driver 580)."""

Driver = Callable[..., list[str]]


def names() -> tuple[str, ...]:
    return tuple(card.name for card in cuda_devices())


def uuids() -> tuple[str, ...]:
    return tuple(card.uuid for card in cuda_devices())


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    cards._query_driver.cache_clear()
    yield
    cards._query_driver.cache_clear()


class NVMLError(Exception):
    def __str__(self) -> str:
        return "Driver Not Loaded"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Have the driver tell of ``names``; the list says what it was asked to do, in order."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def driver(*names: str, broken: bool = False) -> list[str]:
        asked: list[str] = []

        def start() -> None:
            asked.append("start")
            if broken:
                raise NVMLError

        def handle(index: int) -> int:
            if names[index] == LOST:
                raise NVMLError
            return index

        def slice_of(uuid: str) -> str:
            if uuid != MIG:
                raise NVMLError
            return uuid

        def mig_mode(handle: int) -> list[int]:
            if names[handle] not in (CUT, TO_BE_CUT, A100):
                raise NVMLError  # Not supported.
            return [int(names[handle] != A100), 1]

        def slice_at(handle: int, index: int) -> str:
            if names[handle] != CUT or index != 2:
                raise NVMLError
            return MIG

        def memory(handle: int | str) -> int:
            return 10_200_547_328 if isinstance(handle, str) else MEMORY_BYTES[names[handle]]

        def capability(handle: int | str) -> list[int]:
            if handle == MIG:
                raise NVMLError
            return {TURING: [7, 5]}.get(names[int(handle)], [9, 0])

        fake = SimpleNamespace(
            NVMLError=NVMLError,
            nvmlInit=start,
            nvmlShutdown=lambda: asked.append("stop"),
            nvmlDeviceGetCount=lambda: len(names),
            nvmlDeviceGetHandleByIndex=handle,
            nvmlDeviceGetHandleByUUID=slice_of,
            nvmlMemory_v2=2,
            nvmlDeviceGetMemoryInfo=lambda handle, version=1: SimpleNamespace(
                total=memory(handle), reserved=RESERVED_BYTES
            ),
            nvmlDeviceGetName=lambda handle: names[handle] if handle != MIG else MIG_NAME,
            nvmlDeviceGetCudaComputeCapability=capability,
            nvmlSystemGetDriverVersion=lambda: "580.1",
            NVML_DEVICE_MIG_ENABLE=1,
            nvmlDeviceGetMigMode=mig_mode,
            nvmlDeviceGetMaxMigDeviceCount=lambda handle: 7,
            nvmlDeviceGetMigDeviceHandleByIndex=slice_at,
            nvmlDeviceGetUUID=lambda handle: f"GPU-{handle}" if handle != MIG else MIG,
        )
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        return asked

    return driver


def test_cuda_devices_are_named_and_driver_is_shut_down(driver: Driver) -> None:
    asked = driver(H200, H200)
    assert names() == (H200, H200)
    assert asked == ["start", "stop"]


def test_cuda_devices_start_driver_once(driver: Driver) -> None:
    asked = driver(H200)
    assert cuda_devices() == cuda_devices()
    assert asked.count("start") == 1


def test_cuda_devices_without_driver_are_empty(driver: Driver) -> None:
    asked = driver(H200, broken=True)
    assert names() == ()
    assert asked == ["start"]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        pytest.param("", (), id="none"),
        pytest.param("0", (H200,), id="the first"),
        pytest.param("0,1", (H200, H200), id="both"),
        pytest.param(" 0 , 1 ", (H200, H200), id="with spaces"),
        pytest.param("GPU-1", (H200,), id="by UUID"),
        pytest.param("GPU-", (), id="by a UUID of two"),
        pytest.param("GPU-8932f937", (), id="by another machine's UUID"),
        pytest.param("0,GPU-0", (), id="one twice: none"),
        pytest.param("0,,1", (H200,), id="those before nothing"),
        pytest.param(",0", (), id="nothing first: none"),
        pytest.param("0,1,", (H200, H200), id="nothing last"),
        pytest.param("MIG-5c89", (MIG_NAME,), id="a slice"),
        pytest.param("MIG-0", (), id="another machine's slice"),
        pytest.param("-1", (), id="minus one: none"),
        pytest.param(
            "0,-1,1",
            (H200,),
            id="those before minus one",
        ),
        pytest.param("0,1,2", (H200, H200), id="no more than there are"),
    ],
)
def test_cuda_devices_follow_cuda_visible_devices(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, visible: str, expected: tuple[str, ...]
) -> None:
    driver(H200, H200)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert names() == expected


def test_cuda_devices_of_two_models_name_visible_one(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(A100, H200)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert names() == (H200,)


@pytest.mark.parametrize(
    ("names", "world_size", "expected"),
    [
        pytest.param([H200, H200], 2, "nvidia-h200-141g-x2", id="two"),
        pytest.param([H200] * 8, 4, "nvidia-h200-141g-x4", id="some of eight"),
        pytest.param([A100], 1, "nvidia-a100-sxm4-80gb-80g-x1", id="with a hyphen"),
        pytest.param([H200, A100], 1, "nvidia-h200-141g-x1", id="the first of two kinds"),
        pytest.param(
            [H200, A100], 2, "nvidia-h200-141g-and-nvidia-a100-sxm4-80gb-80g-x2", id="two kinds"
        ),
        pytest.param([RTX], 1, "nvidia-geforce-rtx-tm-4090-24g-x1", id="®"),
        pytest.param([], 2, "no-gpu-x2", id="none"),
    ],
)
def test_cards_key_is_slug_of_model_and_count(
    driver: Driver, names: list[str], world_size: int, expected: str
) -> None:
    driver(*names)
    assert cards_key(world_size) == expected


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        pytest.param(None, ("GPU-0", "GPU-1", "GPU-2"), id="all"),
        pytest.param("2,0", ("GPU-2", "GPU-0"), id="by number"),
        pytest.param("GPU-1", ("GPU-1",), id="by UUID"),
        pytest.param("", (), id="none"),
    ],
)
def test_cuda_devices_have_uuids_in_visible_order(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, setting: str | None, expected: tuple[str, ...]
) -> None:
    driver(H200, H200, H200)
    if setting is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    assert uuids() == expected


def test_driver_reports_version_or_reason(driver: Driver) -> None:
    driver(H200)
    assert nvidia_driver() == ("580.1", "")
    cards._query_driver.cache_clear()
    driver(broken=True)
    assert nvidia_driver() == ("", "Driver Not Loaded")


def test_lost_card_is_left_out(driver: Driver) -> None:
    driver(H200, LOST, A100)
    assert names() == (H200, A100)
    assert uuids() == ("GPU-0", "GPU-2")


def test_cards_without_bf16_are_told_apart(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(TURING, H200)
    assert [card.has_bf16 for card in cuda_devices()] == [False, True]
    cards._query_driver.cache_clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", MIG)
    assert [card.has_bf16 for card in cuda_devices()] == [True], "a slice does not say"


@pytest.mark.parametrize(
    ("cards_there", "visible", "expected"),
    [
        pytest.param((CUT,), None, (MIG,), id="the first slice of a card"),
        pytest.param((CUT,), "0", (MIG,), id="by the card's number"),
        pytest.param((CUT,), "GPU-0", (MIG,), id="by the card's UUID"),
        pytest.param((CUT,), MIG, (MIG,), id="by its own UUID"),
        pytest.param((CUT,), f"0,{MIG}", (), id="one twice: none"),
        pytest.param((H200, CUT, H200), None, (MIG,), id="no whole card beside a slice"),
        pytest.param((H200, CUT, H200), "0,2", ("GPU-0", "GPU-2"), id="cards without the cut one"),
        pytest.param((H200, TO_BE_CUT), None, ("GPU-0",), id="a card to be cut is none"),
        pytest.param((TO_BE_CUT, H200), "1,0", ("GPU-1",), id="it ends the list"),
        pytest.param((A100, H200), None, ("GPU-0", "GPU-1"), id="to be cut at the next reset"),
    ],
)
def test_mig_mode_selects_slices_or_whole_cards(
    driver: Driver,
    monkeypatch: pytest.MonkeyPatch,
    cards_there: tuple[str, ...],
    visible: str | None,
    expected: tuple[str, ...],
) -> None:
    driver(*cards_there)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert uuids() == expected


def test_usable_memory_of_card_excludes_driver_memory(driver: Driver) -> None:
    driver(H200)
    (card,) = cuda_devices()
    assert card.usable_bytes == MEMORY_BYTES[H200] - RESERVED_BYTES
