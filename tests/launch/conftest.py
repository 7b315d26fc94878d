"""Real launches of real ranks: a session over a project with a toy workload."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from zerogate.config.options import Options
from zerogate.launch import process_tree
from zerogate.launch.command import CommandLauncher
from zerogate.launch.deadlines import Deadlines
from zerogate.launch.forkserver import ForkserverLauncher
from zerogate.launch.launcher import Launcher, LaunchResult
from zerogate.protocol.atomic_write import write_json
from zerogate.protocol.cell import Cell
from zerogate.protocol.job import Job, job_path
from zerogate.session.progress import Progress
from zerogate.session.session import Session

ROOT = Path(__file__).parents[2]
TOY = Cell(workload="toy_faults", strategy="ddp", world_size=2, tier="cpu")


class KeptForkserver:
    """One fork server for all tests: starting it takes longer than most of them."""

    name = "forkserver"

    def __init__(self, folder: Path) -> None:
        self._launcher = ForkserverLauncher(folder)

    def launch(self, *arguments: Any) -> LaunchResult:
        return self._launcher.launch(*arguments)

    def close(self) -> None:
        """Kept for the next session."""

    def end(self) -> None:
        self._launcher.close()


class Launches:
    """Opens sessions over one project and sees that nothing outlives them."""

    def __init__(self, root: Path, forkserver: KeptForkserver) -> None:
        self.root = root
        self._forkserver = forkserver
        self.data = root / "workloads" / "data" / "faults"
        self._sessions: list[Session] = []

    def session(
        self,
        launcher: str = "forkserver",
        *,
        root: Path | None = None,
        deadline_seconds: float = 120.0,
        data_folder: Path | None = None,
        device_memory_bytes: int | None = None,
        share_device: bool = False,
        repeats: int = 1,
        report_folder: Path | None = None,
        deadlines: Deadlines | None = None,
        around: Callable[[Launcher], Launcher] = lambda launcher: launcher,
        progress: Progress = lambda update: None,
        **job_changes: Any,
    ) -> Session:
        """``deadlines`` in place of the baselines'; ``around`` wraps the launcher."""
        options = Options(
            root=root or self.root,
            report_folder=report_folder or self.root / f"report-{len(self._sessions)}",
            launcher=launcher,
            data_folder=data_folder,
            deadline_seconds=deadline_seconds,
            device_memory_bytes=device_memory_bytes,
            share_device=share_device,
            repeats=repeats,
        )
        options.report_folder.mkdir(exist_ok=True)

        def change(job: Job, folder: Path) -> None:
            changes = dict(job_changes)
            if job.weights_folder:  # Not the user's own cache.
                changes.setdefault("weights_folder", str(self.root / "initial-weights"))
            if changes:
                write_json(job_path(folder), dataclasses.replace(job, **changes))

        class Impatient(Session):
            def deadlines(self, cell: Cell) -> Deadlines:
                return deadlines or super().deadlines(cell)

        session = Impatient(
            options,
            launch_hook=change,
            progress=progress,
            launchers={
                "forkserver": lambda: around(self._forkserver),
                "torchrun": lambda: around(CommandLauncher("torchrun")),
                "accelerate": lambda: around(CommandLauncher("accelerate")),
            },
        )
        self._sessions.append(session)
        return session

    def fault(self, name: str) -> None:
        """What goes wrong on rank 1 from now on; "" for nothing."""
        self.data.mkdir(parents=True, exist_ok=True)
        (self.data / "fault").write_text(name)

    def close(self) -> None:
        for session in self._sessions:
            session.runner.close()


@pytest.fixture(scope="session")
def forkserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptForkserver]:
    yield from kept_forkserver(tmp_path_factory)


def kept_forkserver(folders: pytest.TempPathFactory) -> Iterator[KeptForkserver]:
    """What a fixture that keeps one yields."""
    kept = KeptForkserver(folders.mktemp("forkserver"))
    yield kept
    kept.end()


@pytest.fixture
def launches(tmp_path: Path, forkserver: KeptForkserver) -> Iterator[Launches]:
    shutil.copytree(Path(__file__).parent / "project", tmp_path / "project")
    shutil.copytree(ROOT / "configs", tmp_path / "project" / "configs")
    found = Launches(tmp_path / "project", forkserver)
    yield found
    found.close()
    left = [child for child in process_tree.children() if not _is_server(child)]
    assert not left, f"processes outlived their session: {left}"


def _is_server(process: psutil.Process) -> bool:
    """The kept fork server itself; ranks have its command line, but not its parent."""
    return process.ppid() == os.getpid() and "zerogate.worker.forkserver" in process.cmdline()


def available(session: Session, cell: Cell) -> None:
    """Skip where this machine cannot run ``cell``; compile what it needs."""
    if reason := session.setup.unavailable(cell):
        pytest.skip(reason)
