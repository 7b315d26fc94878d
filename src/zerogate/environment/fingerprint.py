"""Fingerprint: everything that measurements depend on, by name. Runs that are joined share it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

from zerogate.config.file_hash import hash_files, hash_text
from zerogate.config.project import Project
from zerogate.devices.cards import cuda_devices, driver
from zerogate.devices.host import host_key
from zerogate.protocol.stack import STACK

OWN_CODE = Path(__file__).parents[1]

SOURCES = (".py", ".cpp", ".cc", ".h", ".cu", ".cuh")

STEERING = (
    "ATEN_", "CUBLAS_", "CUDA_", "DS_", "LD_", "MKL_", "NCCL_", "NVIDIA_", "OMP_", "PYTORCH_", "TORCH_",
    "ZEROGATE_",
)  # fmt: skip
"""Environment variables that change what ranks do."""


def fingerprint(
    project: Project, settings: Mapping[str, str], data_folder: Path | None
) -> dict[str, str]:
    """Return everything that measurements depend on, by name: ``settings``, the machine, packages
    and files. ``data_folder`` holds the real data sets; None for the generated ones.
    """
    found = {
        "python": platform.python_version(),
        "host": host_key(),
        "CUDA devices": ", ".join(card.name for card in cuda_devices()) or "none",
        "NVIDIA driver": driver()[0] or "none",
        "zerogate's code": _hash(OWN_CODE.rglob("*")),
        "configs/": _hash(project.strategies.rglob("*")),
        "workloads/": _hash(project.workloads.rglob("*")),
        "--data-dir": folder_state(data_folder) if data_folder else "generated",
    }
    for one in importlib.metadata.distributions():
        if not one.name:
            continue  # An interrupted installation left it behind.
        found[one.name] = one.version
        if origin := one.read_text("direct_url.json"):  # A commit, a wheel or a checkout.
            found[one.name] += f" {hash_text(origin)}"
        if one.name in STACK and _is_editable(one):  # Its code changes without its version.
            found[one.name] += f" {_sources(one.name)}"
    found |= {name: os.environ[name] for name in os.environ if name.startswith(STEERING)}
    return found | dict(settings)


def folder_state(folder: Path) -> str:
    """Return a hash of the names, sizes and times of all files below ``folder``: data sets are too
    large to read.
    """
    files = (
        Path(where, name) for where, _, names in os.walk(folder, followlinks=True) for name in names
    )
    lines = [
        f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}"
        for path in sorted(files)
        if path.is_file()
    ]
    return f"{folder} {hash_text(chr(10).join(lines))}"


def _hash(paths: Iterable[Path]) -> str:
    return hash_files(paths)[:12]


def _is_editable(distribution: importlib.metadata.Distribution) -> bool:
    try:
        where = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return False
    return bool(where.get("dir_info", {}).get("editable"))


def _sources(package: str) -> str:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return ""
    found = Path(spec.origin).parent.rglob("*")
    return _hash(path for path in found if path.suffix in SOURCES)
