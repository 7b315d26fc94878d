"""What the doctor finds, and what it says of it."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from zerogate.cli import doctor
from zerogate.cli.doctor import Finding, blocks, examine, report
from zerogate.cli.main import main
from zerogate.devices.cards import Card


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A driver that answers, and two cards; torch is not asked."""
    told = SimpleNamespace(
        version="580.1", why="", names=("NVIDIA H200", "NVIDIA H200"),
        torch='["13.0", true, [2, 28, 3]]',
    )  # fmt: skip
    monkeypatch.setattr(doctor, "driver", lambda: (told.version, told.why))
    monkeypatch.setattr(doctor, "cuda_devices", lambda: [Card(name, "", 0) for name in told.names])
    monkeypatch.setattr(doctor, "ask_torch", lambda: told.torch)
    return told


def found(subject: str) -> list[Finding]:
    return [one for one in examine() if one.subject == subject]


def blocked(tier: str) -> list[str]:
    return [one.subject for one in examine() if blocks(one, tier)]  # type: ignore[arg-type]


def test_doctor_blocks_nothing_in_cpu_tier_on_this_machine() -> None:
    assert blocked("cpu") == []


def test_missing_or_old_package_blocks_both_tiers(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def without(name: str) -> str:
        if name == "deepspeed":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.9" if name == "accelerate" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)
    assert set(blocked("cpu")) == {"deepspeed", "accelerate"}
    assert {"deepspeed", "accelerate"} <= set(blocked("gpu"))
    assert found("deepspeed")[0].remedy.startswith('pip install "deepspeed')
    assert found("accelerate")[0].found.startswith("0.9, not >=")


def test_unmet_dependency_names_package_that_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Requirement("hjson>=3")
    monkeypatch.setattr(doctor, "unmet_below", lambda name: iter([("deepspeed", wanted)]))
    [hjson] = found("hjson")
    assert hjson.state == "warns"
    assert hjson.found.endswith("deepspeed needs hjson>=3")
    assert hjson.remedy == 'pip install "hjson>=3"'


def test_missing_compiler_blocks_cpu_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *arguments, **options: None)
    assert blocked("cpu") == ["g++"]
    assert found("libaio") == []


def test_missing_driver_blocks_gpu_tier_only(driver: SimpleNamespace) -> None:
    driver.version, driver.why = "", "Driver Not Loaded"
    assert blocked("gpu") == ["NVIDIA driver"]
    assert "cpu tier: can run" in report(list(examine()))


@pytest.mark.parametrize(
    ("names", "state"), [((), "lacks"), (("NVIDIA H200",), "warns"), (("A", "B"), "ok")]
)
def test_doctor_state_depends_on_number_of_cuda_devices(
    driver: SimpleNamespace, names: tuple[str, ...], state: str
) -> None:
    driver.names = names
    assert [one.state for one in found("CUDA devices")] == [state]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("[null, false, []]", "is built without CUDA"),
        ('["13.0", false, [2, 28, 3]]', "(CUDA 13.0) sees no device"),
    ],
)
def test_torch_without_cuda_blocks_gpu_tier(
    driver: SimpleNamespace, answer: str, words: str
) -> None:
    driver.torch = answer
    assert words in found("torch and CUDA")[0].found
    assert blocked("gpu") == ["torch and CUDA"]


def test_torch_that_cannot_be_imported_blocks_cpu_tier(driver: SimpleNamespace) -> None:
    driver.torch = ""
    assert found("torch and CUDA")[0].state == "lacks"
    assert "torch and CUDA" in blocked("cpu")


def test_doctor_names_nccl_version() -> None:
    assert found("NCCL")[0].found.startswith("2.28.3: ranks that share a device use gloo")


def test_too_little_memory_blocks_both_tiers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "available_memory_bytes", lambda: 2**30)
    assert blocked("cpu") == blocked("gpu") == ["memory"]
    assert "1 GiB free; 4 are needed" in found("memory")[0].found


def test_full_disk_blocks_cpu_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
    assert set(blocked("cpu")) == {"disk, cache", "disk, temporary", "disk, here"}


def test_doctor_command_reports_that_both_tiers_can_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["cpu tier: can run", "gpu tier: can run"]
    assert all(len(line) <= 80 for line in lines)


def test_doctor_command_with_missing_torch_exits_with_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = Finding("torch", "lacks", "not installed", "pip install torch", "both")

    def examined() -> Iterable[Finding]:
        return [lacking]

    monkeypatch.setattr(doctor, "examine", examined)
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "lacks torch: not installed",
        "      -> pip install torch",
        "",
        "cpu tier: cannot run: torch",
        "gpu tier: cannot run: torch",
    ]


def test_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["docter"])
    assert "doctor" in capsys.readouterr().err


def test_unwritable_folder_blocks_cpu_tier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    assert "disk, here" in blocked("cpu")
