"""Real launches of real ranks: a session over a project with a toy workload."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs
import psutil
import pytest

from zerogate.cell import Cell
from zerogate.launch.command import CommandLauncher
from zerogate.launch.forkserver import ForkserverLauncher
from zerogate.record import Job
from zerogate.session import Options, Session

ROOT = Path(__file__).parents[2]
TOY = Cell(workload="toy_faults", strategy="ddp", world_size=2, tier="cpu")


class Launches:
    """Opens sessions over one project and sees that nothing outlives them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "workloads" / "data" / "faults"
        self._sessions: list[Session] = []

    def session(
        self,
        launcher: str = "forkserver",
        *,
        root: Path | None = None,
        deadline_seconds: float = 120.0,
        data_folder: Path | None = None,
        **job_changes: Any,
    ) -> Session:
        options = Options(
            root=root or self.root,
            baseline_folder=None,
            report_folder=self.root / f"report-{len(self._sessions)}",
            # The user's own cache: compiling DeepSpeed's ops anew would take minutes.
            cache_folder=Path(platformdirs.user_cache_dir("zerogate")),
            launcher=launcher,
            repeats=1,
            data_folder=data_folder,
            deadline_seconds=deadline_seconds,
        )
        options.report_folder.mkdir()
        session = _ChangedSession(
            options,
            launchers={
                "forkserver": lambda: ForkserverLauncher(options.report_folder),
                "torchrun": lambda: CommandLauncher("torchrun"),
                "accelerate": lambda: CommandLauncher("accelerate"),
            },
        )
        session.job_changes = job_changes
        self._sessions.append(session)
        return session

    def fault(self, name: str) -> None:
        """What goes wrong on rank 1 from now on; "" for nothing."""
        self.data.mkdir(parents=True, exist_ok=True)
        (self.data / "fault").write_text(name)

    def close(self) -> None:
        for session in self._sessions:
            session.close()


class _ChangedSession(Session):
    job_changes: dict[str, Any]

    def _job(self, cell: Cell, folder: Path, scratch: Path) -> Job:
        return dataclasses.replace(super()._job(cell, folder, scratch), **self.job_changes)


@pytest.fixture
def launches(tmp_path: Path) -> Iterator[Launches]:
    shutil.copytree(Path(__file__).parent / "project", tmp_path / "project")
    shutil.copytree(ROOT / "configs", tmp_path / "project" / "configs")
    before = set(psutil.Process().children(recursive=True))
    found = Launches(tmp_path / "project")
    yield found
    found.close()
    left = set(psutil.Process().children(recursive=True)) - before
    assert not left, f"processes outlived their session: {left}"


def available(session: Session, cell: Cell) -> None:
    """Skip where this machine cannot run ``cell``; compile what it needs."""
    if reason := session.unavailable(cell):
        pytest.skip(reason)
