"""Whether a cell that offloads has the room for it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from zerogate.devices import room
from zerogate.devices.room import Room, full_parameters, needed, shortage
from zerogate.strategy import read_strategy

ROOT = Path(__file__).parents[2]
GPT2_XL = ROOT / "workloads" / "gpt2xl_wikitext2.py"
PARAMETERS = 1_557_611_200
GIB = 2**30


@pytest.mark.parametrize(
    ("strategy", "host", "disk"),
    [
        ("ddp", 8, 0),
        ("zero3", 8, 0),
        ("zero2_offload", 16 + 8, 0),
        ("zero3_offload", 16 + 2 + 8, 0),
        ("zero3_nvme", 8, 16 + 2),
    ],
)
def test_bytes_per_parameter(strategy: str, host: int, disk: int) -> None:
    found = needed(1000, read_strategy(ROOT / "configs" / f"{strategy}.yaml"), world_size=2)
    assert found == Room(host_bytes=1000 * host, disk_bytes=1000 * disk)


def machine(monkeypatch: pytest.MonkeyPatch, *, memory: int, disk: int) -> None:
    monkeypatch.setattr(room, "available_memory_bytes", lambda: memory)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda folder: SimpleNamespace(free=disk))


@pytest.mark.parametrize(
    ("strategy", "memory", "disk", "said"),
    [
        pytest.param("zero3_offload", 40 * GIB, 0, "", id="enough"),
        pytest.param(
            "zero3_offload", 37 * GIB, 0,
            "needs 38 GiB of host memory for zero3_offload of 1.6e9 parameters, 37 GiB are available",
            id="too little memory",
        ),
        pytest.param(
            "zero3_nvme", 40 * GIB, 20 * GIB,
            "needs 26 GiB of disk for zero3_nvme of 1.6e9 parameters, 20 GiB are free in there; "
            "choose another --report-dir",
            id="too little disk",
        ),
    ],
)  # fmt: skip
def test_what_is_said(
    monkeypatch: pytest.MonkeyPatch, strategy: str, memory: int, disk: int, said: str
) -> None:
    machine(monkeypatch, memory=memory, disk=disk)
    found = read_strategy(ROOT / "configs" / f"{strategy}.yaml")
    assert shortage(GPT2_XL, found, 2, Path("there")) == said


@pytest.mark.parametrize(
    "path", sorted((ROOT / "workloads").glob("*.py")), ids=lambda path: path.stem
)
def test_the_workloads_say_how_large_they_are(path: Path) -> None:
    assert (full_parameters(path) or 0) > 3e8


@pytest.mark.parametrize(
    "text",
    ["", "full_parameters = count()", "class A:\n    full_parameters: int", "def (", "\0"],
)
def test_a_workload_that_does_not_say_is_not_guarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    machine(monkeypatch, memory=0, disk=0)
    path = tmp_path / "own.py"
    path.write_text(text)
    strategy = read_strategy(ROOT / "configs" / "zero3_offload.yaml")
    assert shortage(path, strategy, 2, tmp_path) == ""
