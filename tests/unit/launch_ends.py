"""How launches end: records, exit codes, and the failure that they are told to be."""

from __future__ import annotations

from pathlib import Path

import pytest
from records import a_job

from zerogate.launch.errors import LaunchFailedError
from zerogate.launch.launcher import LaunchResult
from zerogate.launch.result import collect_records
from zerogate.protocol.atomic_write import write_json
from zerogate.protocol.record import RankRecord, record_path

COMMAND = "pytest -m cpu --workload deberta_mrpc"


def wrote(folder: Path, *records: RankRecord) -> None:
    for record in records:
        write_json(record_path(folder, record.rank), record)


def ended(log: Path, *, overdue: str = "", oom_kills: int = 0, **exit_codes: int) -> LaunchResult:
    return LaunchResult(
        exit_codes={name.replace("_", " "): code for name, code in exit_codes.items()},
        overdue=overdue,
        oom_kills=oom_kills,
        seconds=12.3,
        log=log,
    )


def failure(folder: Path, how: LaunchResult) -> LaunchFailedError:
    with pytest.raises(LaunchFailedError) as caught:
        collect_records(a_job(folder), folder, how, COMMAND)
    assert "\n" not in caught.value.summary
    assert caught.value.summary.startswith("deberta_mrpc-zero2-w2-cpu: ")
    return caught.value
