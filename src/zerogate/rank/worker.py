"""A rank's entry: reads the job, trains, writes its record whatever happens.

``python -m zerogate.rank.worker JOB`` under torchrun or accelerate; ``run`` from the fork server.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from zerogate.rank.lifeline import leave_with
from zerogate.record import (
    SCHEMA_VERSION,
    Failure,
    Job,
    RankRecord,
    job_path,
    read_job,
    record_path,
    write_json,
)

EXIT_OOM = 77
EXIT_ERROR = 1


class Findings:
    """The record in the making: what is known so far is written even when training fails."""

    def __init__(self, job: Job, rank: int) -> None:
        self.phase = "set-up"
        self._job = job
        self._rank = rank
        self._values: dict[str, Any] = {}

    def add(self, **values: Any) -> None:
        self._values.update(values)

    def write(self, outcome: str, error: BaseException | None = None) -> None:
        failure = None
        if error is not None:
            failure = Failure(
                at=time.time(),
                phase=self.phase,
                type=type(error).__name__,
                message=_encodable(str(error)),
                traceback=_encodable("".join(traceback.format_exception(error))),
            )
        record = RankRecord(
            schema_version=SCHEMA_VERSION,
            launch_id=self._job.launch_id,
            rank=self._rank,
            world_size=self._job.cell.world_size,
            outcome=outcome,  # type: ignore[arg-type]
            failure=failure,
            **self._values,
        )
        write_json(record_path(Path(self._job.record_folder), self._rank), record)


def _encodable(text: str) -> str:
    """``text`` as UTF-8 can have it; lone surrogates become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def run(folder: Path) -> int:
    """Do the job in ``folder`` as the rank that the environment names; the exit status.

    The caller ends the process with it at once: after a failure peers may sit in a collective,
    and nothing here may wait for them.
    """
    started = time.perf_counter()
    job = read_job(job_path(folder))
    leave_with(job.controller_pid)
    findings = Findings(job, int(os.environ["RANK"]))
    try:
        import torch

        from zerogate.rank.training import train_cell
    except BaseException as error:
        findings.write("error", error)
        traceback.print_exc()
        return EXIT_ERROR
    try:
        train_cell(job, findings, started)
    except torch.OutOfMemoryError as error:
        findings.write("oom", error)
        traceback.print_exc()
        return EXIT_OOM
    except BaseException as error:
        findings.write("error", error)
        traceback.print_exc()
        return EXIT_ERROR
    findings.write("ok")
    return 0


def load_workload_class(path: Path) -> Any:
    """The one Workload subclass that ``path`` defines.

    Its repository root goes on ``sys.path``, so that workloads can share modules beside them.
    Raises ImportError when there is not exactly one.
    """
    from zerogate.rank.workload import Workload

    sys.path.insert(0, str(path.parent.parent))
    name = f"workloads.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Workload) and value.__module__ == name
    ]
    if len(found) != 1:
        raise ImportError(
            f"{path}: {len(found)} subclasses of Workload; expected exactly one; "
            "keep one class per workload file"
        )
    return found[0]


def main() -> None:
    status = run(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
