"""The host's key, and the folder of what is compiled for it."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from zerogate.devices import host

Cpu = Callable[..., None]


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Cpu:
    """Have the machine be another: what /proc/cpuinfo says, and how many cores are usable."""

    def cpu(cores: int = 2, **info: str) -> None:
        fields = {name.replace("_", " "): value for name, value in info.items()}
        monkeypatch.setattr(host, "_cpuinfo", lambda: fields)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))

    return cpu


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        pytest.param("AMD EPYC", "amd-epyc-2c", id="plain"),
        pytest.param("AMD EPYC 9B14", "amd-epyc-9b14-2c", id="with a number"),
        pytest.param("Intel(R) Xeon(R) CPU @ 2.20GHz", "intel-xeon-2c", id="marks and a clock"),
        pytest.param(
            "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
            "intel-xeon-platinum-8481c-2c",
            id="a model and a clock",
        ),
        pytest.param("AMD EPYC 7763 64-Core Processor", "amd-epyc-7763-64-core-2c", id="Processor"),
    ],
)
def test_host_key_is_slug_without_clock(cpu: Cpu, model: str, expected: str) -> None:
    cpu(model_name=model)
    assert host.host_key() == expected


def test_host_key_does_not_depend_on_clock(cpu: Cpu) -> None:
    keys = set()
    for clock in ("2.20", "2.70"):
        cpu(model_name=f"Intel(R) Xeon(R) CPU @ {clock}GHz", cpu_MHz=f"{clock}00.000")
        keys.add(host.host_key())
    assert len(keys) == 1


def test_host_key_counts_usable_cores(cpu: Cpu) -> None:
    cpu(cores=6, model_name="AMD EPYC")
    assert host.host_key() == "amd-epyc-6c"


def test_host_key_without_cpu_name_is_cpu_and_cores(cpu: Cpu) -> None:
    cpu(vendor_id="ARM")
    assert host.host_key() == "cpu-2c"


def test_host_key_of_this_machine_is_slug() -> None:
    assert re.fullmatch(r"[a-z0-9-]+-[1-9][0-9]*c", host.host_key())
    assert "ghz" not in host.host_key()


CPU = {
    "model_name": "AMD EPYC",
    "cpu_family": "25",
    "model": "1",
    "flags": "fma avx2",
    "cpu_MHz": "2450.000",
    "bogomips": "4900.00",
}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        pytest.param({}, True, id="the same machine"),
        pytest.param({"cpu_MHz": "3200.000", "bogomips": "4901.12"}, True, id="at another clock"),
        pytest.param({"flags": "fma avx2 avx512f"}, False, id="with other instructions"),
        pytest.param({"model_name": "Intel Xeon"}, False, id="another model"),
    ],
)
def test_native_folder_depends_on_cpu_but_not_on_clock(
    cpu: Cpu, tmp_path: Path, change: dict[str, str], same: bool
) -> None:
    cpu(**CPU)
    folder = host.native_folder(tmp_path)
    cpu(**CPU | change)
    assert (host.native_folder(tmp_path) == folder) == same


def test_native_folder_depends_on_torch_and_deepspeed_release(
    cpu: Cpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu(**CPU)
    folders = {host.native_folder(tmp_path)}
    for changed in ("torch", "deepspeed"):
        monkeypatch.setattr(
            host, "installed_version", lambda name, _, changed=changed: f"9{name == changed}"
        )
        folders.add(host.native_folder(tmp_path))
    assert len(folders) == 3
    assert all(folder.is_relative_to(tmp_path) for folder in folders)


def test_native_folder_depends_on_sources_but_not_on_their_path(
    cpu: Cpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu(**CPU)

    def folder_with(place: str, source: str) -> Path:
        package = tmp_path / place / "deepspeed"
        (package / "ops" / "csrc").mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "ops" / "csrc" / "adam.cpp").write_text(source)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "path", [str(tmp_path / place), *sys.path])
            patch.delitem(sys.modules, "deepspeed", raising=False)
            importlib.invalidate_caches()
            host._sources.cache_clear()
            return host.native_folder(tmp_path)

    assert folder_with("here", "v = b1 * v;") == folder_with("there", "v = b1 * v;")
    assert folder_with("changed", "v = b2 * v;") != folder_with("again", "v = b1 * v;")
    host._sources.cache_clear()


def test_native_folder_without_installed_package_says_absent(
    cpu: Cpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu(**CPU)

    monkeypatch.setattr(host.importlib.metadata, "distributions", lambda **_: [])
    assert "absent" in host.native_folder(tmp_path).name
