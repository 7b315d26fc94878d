"""Whether a cell that offloads has the room for it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from zerogate.config.strategy import read_strategy
from zerogate.devices import capacity
from zerogate.devices.capacity import Capacity, full_parameters, needed, shortage

ROOT = Path(__file__).parents[2]
GPT2_XL = ROOT / "workloads" / "gpt2xl_wikitext2.py"
PARAMETERS = 1_557_611_200
GIB = 2**30


BILLION = 1_000_000_000
BUILT = 2 * 4 * BILLION
"""What two ranks build on the host, of a billion parameters in fp32."""


@pytest.mark.parametrize(
    ("strategy", "host", "disk", "locked"),
    [
        ("ddp", 0, 0, 0),
        ("zero3", 0, 0, 0),
        # Moments of half a billion; pinned: master copy and gradients of 2e9 bytes, a copy of 1e9.
        ("zero2_offload", 2 * (8 * BILLION // 2 + 2**31 + 2**31 + 2**30), 0, 0),
        # The master copy is not pinned; the parameters are.
        ("zero3_offload", 2 * (12 * BILLION // 2 + 2**31 + 2**30 + 2**30), 0, 0),
        # Four buffers of fp32, five of parameters and one of a share: locked; gradients: pinned.
        (
            "zero3_nvme", 2 * (4 * 2 * BILLION + 10**9 + BILLION + 2**30), (16 + 2) * BILLION,
            4 * 2 * BILLION + 10**9 + BILLION,
        ),
    ],
)  # fmt: skip
def test_needed_capacity_counts_offloaded_state(
    strategy: str, host: int, disk: int, locked: int
) -> None:
    found = needed(BILLION, read_strategy(ROOT / "configs" / f"{strategy}.yaml"), world_size=2)
    assert found == Capacity(host_bytes=BUILT + host, disk_bytes=disk, locked_bytes=locked)


def test_needed_capacity_of_zero3_counts_gradients_by_sub_group() -> None:
    """3.5 billion on one rank: three sub-groups of 4e9 bytes and one of 2e9, each in a power of two."""
    strategy = read_strategy(ROOT / "configs" / "zero3_offload.yaml")
    found = needed(3_500_000_000, strategy, world_size=1)
    moments_and_master = 12 * 3_500_000_000
    gradients = 3 * 2**32 + 2**31
    assert found.host_bytes == 4 * 3_500_000_000 + moments_and_master + gradients + 2 * 2**33


def machine(
    monkeypatch: pytest.MonkeyPatch, *, memory: int, disk: int, lock: int | None = None
) -> None:
    monkeypatch.setattr(capacity, "may_lock_bytes", lambda: lock)
    monkeypatch.setattr(capacity, "available_memory_bytes", lambda: memory)
    monkeypatch.setattr(capacity.shutil, "disk_usage", lambda folder: SimpleNamespace(free=disk))


@pytest.mark.parametrize(
    ("strategy", "memory", "disk", "said"),
    [
        pytest.param("zero3_offload", 46 * GIB, 0, "", id="enough"),
        pytest.param(
            "zero3_offload", 44 * GIB, 0,
            "needs 45 GiB of host memory for zero3_offload of 1.6e9 parameters, 44 GiB are available",
            id="too little memory",
        ),
        pytest.param(
            "zero3_nvme", 80 * GIB, 20 * GIB,
            "needs 26 GiB of disk for zero3_nvme of 1.6e9 parameters, 20 GiB are free in there; "
            "choose another --report-dir",
            id="too little disk",
        ),
    ],
)  # fmt: skip
def test_shortage_names_missing_memory_or_disk(
    monkeypatch: pytest.MonkeyPatch, strategy: str, memory: int, disk: int, said: str
) -> None:
    machine(monkeypatch, memory=memory, disk=disk)
    found = read_strategy(ROOT / "configs" / f"{strategy}.yaml")
    assert shortage(GPT2_XL, found, 2, Path("there")) == said


def test_shortage_names_memory_that_cannot_be_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed would end without a word from Python."""
    machine(monkeypatch, memory=80 * GIB, disk=80 * GIB, lock=8 * 2**20)
    found = read_strategy(ROOT / "configs" / "zero3_nvme.yaml")
    assert shortage(GPT2_XL, found, 2, Path("there")) == (
        "needs to lock 14 GiB of memory a rank for zero3_nvme of 1.6e9 parameters, the limit is "
        "8192 KiB; raise ulimit -l"
    )
    offload = read_strategy(ROOT / "configs" / "zero3_offload.yaml")
    assert shortage(GPT2_XL, offload, 2, Path("there")) == ""


@pytest.mark.parametrize(
    "path", sorted((ROOT / "workloads").glob("*.py")), ids=lambda path: path.stem
)
def test_workloads_declare_full_parameters(path: Path) -> None:
    assert (full_parameters(path) or 0) > 3e8


@pytest.mark.parametrize(
    "text",
    ["", "full_parameters = count()", "class A:\n    full_parameters: int", "def (", "\0"],
)
def test_workload_without_full_parameters_has_no_shortage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    machine(monkeypatch, memory=0, disk=0)
    path = tmp_path / "own.py"
    path.write_text(text)
    strategy = read_strategy(ROOT / "configs" / "zero3_offload.yaml")
    assert shortage(path, strategy, 2, tmp_path) == ""
