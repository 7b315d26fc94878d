"""An interrupted run, continued: under what its launches were made, and which of them still count."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

import zerogate
from zerogate.config_file import ConfigError
from zerogate.devices.cards import cuda_device_names
from zerogate.devices.host import host_key
from zerogate.launch.launcher import Ended
from zerogate.record import STRICT, Job, Strict, job_path, read_job, write_json
from zerogate.validated import from_json

STACK = ("torch", "accelerate", "deepspeed", "transformers", "datasets", "evaluate")
"""What may be a checkout, whose version says nothing about what is in it."""

ENDED = "ended.json"
"""Beside a launch's records once the controller has seen that they are good."""

SOURCES = (".py", ".cpp", ".cc", ".h", ".cu", ".cuh")

STEERING = (
    "ATEN_", "CUBLAS_", "CUDA_", "DS_", "LD_", "MKL_", "NCCL_", "NVIDIA_", "OMP_", "PYTORCH_", "TORCH_",
    "ZEROGATE_",
)  # fmt: skip
"""Environment variables that change what ranks do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What ``run.json`` says of the launches beside it: ``made_under`` are names and what they were,
    versions, hashes and settings.
    """

    __pydantic_config__: ClassVar[Strict] = STRICT

    id: str
    made_under: dict[str, str]


class Kept:
    """The launches in a report folder that count: those of this run, begun now or resumed."""

    def __init__(self, report_folder: Path, made_under: Callable[[], dict[str, str]]) -> None:
        self._folder = report_folder
        self._made_under = made_under
        self._run: Run | None = None
        self._resumed = False

    def resume(self) -> None:
        """Go on with the run in the folder, if there is one. Raises ConfigError."""
        try:
            now = self._made_under()
        except OSError as error:
            raise ConfigError(
                f"--resume: {error.filename}: {error.strerror}; it is needed to tell whether "
                "anything changed; make it readable, or start anew without --resume"
            ) from None
        self._run = interrupted(self._folder, now)
        self._resumed = self._run is not None

    @property
    def run_id(self) -> str:
        """This run's; without one to go on with it begins here, and what was kept before is not."""
        if self._run is None:
            self._run = Run(id=uuid.uuid4().hex, made_under=self._made_under())
            write_json(run_path(self._folder), self._run)
            for scratch in self._folder.glob("launches/*/*/scratch"):
                shutil.rmtree(scratch, ignore_errors=True)  # Of a session that was killed.
        return self._run.id

    def finish(self) -> None:
        """There is nothing to go on with: the next run begins anew."""
        run_path(self._folder).unlink(missing_ok=True)

    def keep(self, folder: Path, ended: Ended) -> None:
        """Have the launch in ``folder`` count if this run is resumed."""
        write_json(folder / ENDED, asdict(ended) | {"log": str(ended.log)})

    def find(self, job: Job, folder: Path) -> tuple[Job, Path, Ended] | None:
        """The launch of ``job`` that this run has kept in ``folder``: its job, and how it ended."""
        if not self._resumed:
            return None
        try:
            theirs = read_job(job_path(folder))
            ended = from_json(Ended, (folder / ENDED).read_bytes())
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None  # Not there, or not whole: it is launched again.
        same = replace(job, launch_id=theirs.launch_id, controller_pid=theirs.controller_pid)
        return (theirs, folder, ended) if _as_json(theirs) == _as_json(same) else None


def _as_json(job: Job) -> str:
    return json.dumps(asdict(job), sort_keys=True)


def run_path(report_folder: Path) -> Path:
    return report_folder / "run.json"


def interrupted(report_folder: Path, now: Mapping[str, str]) -> Run | None:
    """The run to go on with; None where there is none.

    Raises ConfigError when it cannot be read, or was made under something else than what is ``now``.
    """
    path = run_path(report_folder)
    if not path.exists():
        return None
    try:
        run = from_json(Run, path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--resume: {path} cannot be read ({error}); expected what an interrupted run wrote; "
            "start anew without --resume"
        ) from None
    changed = [
        f"{name}: {run.made_under.get(name, 'absent')} -> {now.get(name, 'absent')}"
        for name in sorted({*run.made_under, *now})
        if run.made_under.get(name) != now.get(name)
    ]
    if changed:
        raise ConfigError(
            f"--resume: the interrupted run was made under something else ({'; '.join(changed)}); "
            "what it measured cannot be joined with what would be measured now; put it back, or "
            "start anew without --resume"
        )
    return run


def made_under(root: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Everything that measurements depend on: ``settings``, the machine, packages and files."""
    found = {
        "python": platform.python_version(),
        "host": host_key(),
        "CUDA devices": ", ".join(cuda_device_names()) or "none",
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
        if one.name in STACK and _is_editable(one):
            found[one.name] += f" {_sources(one.name)}"
    found |= {name: os.environ[name] for name in os.environ if name.startswith(STEERING)}
    return found | dict(settings)


def folder_state(folder: Path) -> str:
    """The names, sizes and times of all files below ``folder``: data sets are too large to read."""
    files = (
        Path(where, name) for where, _, names in os.walk(folder, followlinks=True) for name in names
    )
    lines = [
        f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}"
        for path in sorted(files)
        if path.is_file()
    ]
    return f"{folder} {_short(chr(10).join(lines).encode())}"


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
