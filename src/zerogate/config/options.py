"""What the user asked of a session: the command line as values, and back."""

from __future__ import annotations

import hashlib
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from zerogate.protocol.cell import Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked of a session. Folders are absolute."""

    root: Path
    report_folder: Path
    baseline_folder: Path | None = None
    cache_folder: Path = field(
        default_factory=lambda: Path(platformdirs.user_cache_dir("zerogate"))
    )
    launcher: str = "forkserver"
    repeats: int = 1
    data_folder: Path | None = None
    deadline_seconds: float | None = None
    device_memory_bytes: int | None = None
    share_device: bool = False
    packages: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    resume: bool = False

    def settings(self) -> dict[str, str]:
        """What launches depend on, by the option's name."""
        data, memory = self.data_folder, self.device_memory_bytes
        return {
            "--launcher": self.launcher,
            "--device-memory": "default" if memory is None else str(memory),
            "--share-device": str(self.share_device),
            "--data-dir": folder_state(data) if data else "generated",
        }

    def command(self, cell: Cell, purpose: str = "training") -> str:
        """What to type to see a launch of ``cell`` again."""
        marks = cell.tier if purpose == "training" else f'"{cell.tier} and batch_size"'
        command = (
            f"pytest -m {marks} --workload {cell.workload} --strategy {cell.strategy} "
            f"--world-size {cell.world_size} --launcher {self.launcher}"
        )
        if self.device_memory_bytes is not None:
            command += f" --device-memory {self.device_memory_bytes}"
        for text in self.packages:
            command += f" --with {shlex.quote(text)}"
        for text in self.against:
            command += f" --against {shlex.quote(text)}"
        if self.share_device:
            command += " --share-device"
        if self.data_folder:
            command += f" --data-dir={shlex.quote(str(self.data_folder))}"
        return command


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
    return f"{folder} {hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:12]}"
