"""Everything that measurements depend on, by name: what two runs must share to be joined."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

import zerogate
from zerogate.devices.cards import cuda_devices, driver
from zerogate.devices.host import host_key
from zerogate.protocol.stack import STACK

SOURCES = (".py", ".cpp", ".cc", ".h", ".cu", ".cuh")

STEERING = (
    "ATEN_", "CUBLAS_", "CUDA_", "DS_", "LD_", "MKL_", "NCCL_", "NVIDIA_", "OMP_", "PYTORCH_", "TORCH_",
    "ZEROGATE_",
)  # fmt: skip
"""Environment variables that change what ranks do."""


def fingerprint(root: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Everything that measurements depend on: ``settings``, the machine, packages and files."""
    found = {
        "python": platform.python_version(),
        "host": host_key(),
        "CUDA devices": ", ".join(card.name for card in cuda_devices()) or "none",
        "NVIDIA driver": driver()[0] or "none",
        "zerogate's code": _hash(Path(zerogate.__file__).parent.rglob("*")),
        "configs/": _hash((root / "configs").rglob("*")),
        "workloads/": _hash((root / "workloads").rglob("*")),
    }
    for one in importlib.metadata.distributions():
        if not one.name:
            continue  # What an interrupted installation left behind.
        found[one.name] = one.version
        if origin := one.read_text("direct_url.json"):  # A commit, a wheel or a checkout.
            found[one.name] += f" {_short(origin.encode())}"
        if one.name in STACK and _is_editable(one):  # Its version says nothing about what is in it.
            found[one.name] += f" {_sources(one.name)}"
    found |= {name: os.environ[name] for name in os.environ if name.startswith(STEERING)}
    return found | dict(settings)


def _hash(paths: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for path in sorted(paths):
        if path.is_file() and "__pycache__" not in path.parts:
            found.update(str(path).encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:12]


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


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
