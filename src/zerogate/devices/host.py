"""The host: which CPU this is, and where what is compiled for it is kept."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from pathlib import Path


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
    """``amd-epyc-2c``: CPU model and usable cores; never clocks, host names or uptime."""
    model = _cpuinfo().get("model name", "cpu")
    slug = re.sub(r"\((r|tm)\)|\bcpu\b|\bprocessor\b|@.*", " ", model.lower())
    slug = re.sub(r"[^a-z0-9]+", "-", slug).strip("-") or "cpu"
    return f"{slug}-{len(os.sched_getaffinity(0))}c"


def native_folder(cache: Path, overlay: Path | None = None) -> Path:
    """Where compiled ops are kept, one folder per torch, DeepSpeed, Python and CPU. ``overlay`` has
    packages that ranks find before the environment's.

    Two DeepSpeed releases that share one folder break each other, and code compiled for one CPU
    can be illegal on another. DeepSpeed's sources count too, for those who change them; where they
    lie does not, so environments with the same stack compile once.
    """
    versions = [_version(name, overlay) for name in ("torch", "deepspeed")]
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
    """A hash of the C++ sources that a package brings along; its files are found, not imported."""
    if overlay is not None and (overlay / package).is_dir():
        folder = overlay / package
    else:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            return ""
        folder = Path(spec.origin).parent
    found = hashlib.sha256()
    for path in sorted(folder.glob("ops/csrc/**/*")):
        if path.is_file():
            found.update(path.read_bytes())
    return found.hexdigest()


def _version(package: str, overlay: Path | None) -> str:
    path = [str(overlay), *sys.path] if overlay is not None else sys.path
    found = next(iter(importlib.metadata.distributions(name=package, path=path)), None)
    return found.version if found is not None else "-absent"
