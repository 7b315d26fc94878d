"""The host's CPU, and the folder for ops that are compiled for it."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
import sys
from pathlib import Path

from zerogate.config.file_hash import hash_files
from zerogate.protocol.stack import installed_version


@functools.cache
def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    found: dict[str, str] = {}
    for name, value in pairs:
        found.setdefault(name.strip(), value.strip())
    return found


def host_key() -> str:
    """Return CPU model and usable cores, like ``amd-epyc-2c``; no clocks, host name or uptime."""
    model = _cpuinfo().get("model name", "cpu")
    slug = re.sub(r"\((r|tm)\)|\bcpu\b|\bprocessor\b|@.*", " ", model.lower())
    slug = re.sub(r"[^a-z0-9]+", "-", slug).strip("-") or "cpu"
    return f"{slug}-{len(os.sched_getaffinity(0))}c"


def native_folder(cache: Path, overlay: Path | None = None) -> Path:
    """Return the folder for compiled ops: one per torch, DeepSpeed, Python and CPU.

    ``overlay`` has packages that ranks import instead of the environment's. Two DeepSpeed releases
    in one folder break each other, and code compiled for one CPU can be illegal on another. The
    content of DeepSpeed's sources counts too, since a user may change them. Their path does not,
    so environments with the same stack compile once.
    """
    path = [str(overlay), *sys.path] if overlay is not None else None
    versions = [installed_version(name, path) or "-absent" for name in ("torch", "deepspeed")]
    info = _cpuinfo()
    key = hashlib.sha256(
        "|".join(
            [
                *(info.get(name, "") for name in ("model name", "cpu family", "model", "flags")),
                _sources("deepspeed", overlay),
            ]
        ).encode()
    ).hexdigest()[:8]
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    return cache / "native" / f"torch{versions[0]}-deepspeed{versions[1]}-{python}-{key}"


@functools.cache
def _sources(package: str, overlay: Path | None) -> str:
    """Return a hash of the C++ sources in a package, without importing it."""
    if overlay is not None and (overlay / package).is_dir():
        folder = overlay / package
    else:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            return ""
        folder = Path(spec.origin).parent
    return hash_files(folder.glob("ops/csrc/**/*"), with_paths=False)
