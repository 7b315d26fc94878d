"""Resuming an interrupted run, and the choice of its launches that still count."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

from zerogate.config.strategy_file import ConfigError
from zerogate.config.validation import from_json
from zerogate.launch.launcher import LaunchResult
from zerogate.protocol.atomic_write import write_json
from zerogate.protocol.job import Job, job_path, read_job
from zerogate.protocol.record import STRICT, Strict

ENDED = "ended.json"
"""File beside a launch's records, written once the controller knows that they are good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Content of ``run.json``, which describes the run of the launches beside it.

    ``fingerprint`` has versions, hashes and settings, by name.
    """

    __pydantic_config__: ClassVar[Strict] = STRICT

    id: str
    fingerprint: dict[str, str]


class KeptLaunches:
    """Launches in a report folder that count: those of this run, begun now or resumed."""

    def __init__(self, report_folder: Path, fingerprint: Callable[[], dict[str, str]]) -> None:
        self._folder = report_folder
        self._fingerprint = fingerprint
        self._run: Run | None = None
        self._resumed = False

    def resume(self) -> None:
        """Continue the run in the folder, if there is one. Raises ConfigError if anything changed."""
        try:
            now = self._fingerprint()
        except OSError as error:
            raise ConfigError(
                f"--resume: {error.filename}: {error.strerror}; it is needed to tell whether "
                "anything changed; make it readable, or start anew without --resume"
            ) from None
        self._run = interrupted(self._folder, now)
        self._resumed = self._run is not None

    def share(self) -> None:
        """Begin the run if none was resumed; from now on, find launches that others made for it."""
        _ = self.run_id
        self._resumed = True

    def join(self) -> None:
        """Take part in the run that another process shares. Raises OSError, ValueError.

        The fingerprint is not compared: this process was given other devices, and little else.
        """
        self._run = from_json(Run, run_path(self._folder).read_bytes())
        self._resumed = True

    @property
    def run_id(self) -> str:
        """Id of this run. If no run was resumed, reading it begins one without kept launches."""
        if self._run is None:
            self._run = Run(id=uuid.uuid4().hex, fingerprint=self._fingerprint())
            write_json(run_path(self._folder), self._run)
            for scratch in self._folder.glob("launches/*/*/scratch"):
                shutil.rmtree(scratch, ignore_errors=True)  # From a session that was killed.
        return self._run.id

    def finish(self) -> None:
        """Remove the run's file: nothing is left to resume, and the next run begins anew."""
        run_path(self._folder).unlink(missing_ok=True)

    def keep(self, folder: Path, result: LaunchResult) -> None:
        """Mark the launch in ``folder`` as one that counts if this run is resumed."""
        write_json(folder / ENDED, asdict(result) | {"log": str(result.log)})

    def find(self, job: Job, folder: Path) -> tuple[Job, Path, LaunchResult] | None:
        """Return the job, folder and result of the launch of ``job`` that this run kept, or None."""
        if not self._resumed:
            return None
        try:
            theirs = read_job(job_path(folder))
            result = from_json(LaunchResult, (folder / ENDED).read_bytes())
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None  # Absent or incomplete: it is launched again.
        same = replace(job, launch_id=theirs.launch_id, controller_pid=theirs.controller_pid)
        return (theirs, folder, result) if _as_json(theirs) == _as_json(same) else None


def _as_json(job: Job) -> str:
    return json.dumps(asdict(job), sort_keys=True)


def run_path(report_folder: Path) -> Path:
    """Return the path of the file that describes the run in a report folder."""
    return report_folder / "run.json"


def interrupted(report_folder: Path, now: Mapping[str, str]) -> Run | None:
    """Return the interrupted run in a report folder; None if there is none.

    Raises ConfigError if it cannot be read, or if its fingerprint is not ``now``.
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
        f"{name}: {run.fingerprint.get(name, 'absent')} -> {now.get(name, 'absent')}"
        for name in sorted({*run.fingerprint, *now})
        if run.fingerprint.get(name) != now.get(name)
    ]
    if changed:
        raise ConfigError(
            f"--resume: the interrupted run was made under something else ({'; '.join(changed)}); "
            "what it measured cannot be joined with what would be measured now; put it back, or "
            "start anew without --resume"
        )
    return run
