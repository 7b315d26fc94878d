"""The options of a session, parsed once, and the command line that has the same effect."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import platformdirs

from zerogate.config.project import Project
from zerogate.protocol.cell import Cell
from zerogate.protocol.units import GIB, KIB, MIB


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a session; folders are absolute. ``root`` is the project's.

    ``workloads``, ``strategies`` and ``world_sizes`` span the cells, before ``-m`` and ``-k`` select
    among them. ``tests`` are the paths or node ids that the user named; with ``pyargs``, packages.
    ``device_memory_bytes`` is None where the user named no budget: the tier has a default
    (``devices.assignment``). ``jobs`` is the number of cells whose launches run side by side.
    """

    root: Path
    report_folder: Path
    workloads: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    world_sizes: tuple[int, ...] = (2,)
    tests: tuple[str, ...] = ()
    pyargs: bool = False
    baseline_folder: Path | None = None
    cache_folder: Path = field(
        default_factory=lambda: Path(platformdirs.user_cache_dir("zerogate"))
    )
    launcher: str = "forkserver"
    repeats: int = 1
    jobs: int = 1
    data_folder: Path | None = None
    deadline_seconds: float | None = None
    device_memory_bytes: int | None = None
    share_device: bool = False
    packages: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    resume: bool = False
    require_cells: bool = False
    update_baselines: bool = False
    reason: str = ""
    missing_baseline: Literal["fail", "skip"] = "fail"

    @cached_property
    def project(self) -> Project:
        """The project in ``root``."""
        return Project(self.root)

    @property
    def weights_folder(self) -> Path:
        """The part of the cache that keeps initial weights."""
        return self.cache_folder / "initial-weights"

    def settings(self) -> dict[str, str]:
        """Return the options that launches depend on, by their names on the command line."""
        memory = self.device_memory_bytes
        return {
            "--launcher": self.launcher,
            "--device-memory": "default" if memory is None else str(memory),
            "--share-device": str(self.share_device),
        }

    def command(self, cell: Cell, *, batch_size: bool = False) -> str:
        """Return the command that launches ``cell`` again: for training, or for its largest batch."""
        marks = f'"{cell.tier} and batch_size"' if batch_size else cell.tier
        command = (
            f"pytest -m {marks} --workload {cell.workload} --strategy {cell.strategy} "
            f"--world-size {cell.world_size} --launcher {self.launcher}"
        )
        if self.device_memory_bytes is not None:
            command += f" --device-memory {with_unit(self.device_memory_bytes)}"
        for text in self.packages:
            command += f" --with {shlex.quote(text)}"
        for text in self.against:
            command += f" --against {shlex.quote(text)}"
        if self.share_device:
            command += " --share-device"
        if self.data_folder:
            command += f" --data-dir={shlex.quote(str(self.data_folder))}"
        if self.pyargs:
            command += " --pyargs"
        for name in self.tests:
            command += f" {shlex.quote(name)}"
        return command


def with_unit(size_bytes: int) -> str:
    """Return a number of bytes as ``--device-memory`` takes it, to the byte: ``24GiB``, ``1000B``."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size_bytes % unit == 0:
            return f"{size_bytes // unit}{name}"
    return f"{size_bytes}B"
