"""From records and exit codes to an outcome: which rank it was, what it was, where to look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from launch_ends import COMMAND, ended, failure, wrote
from records import a_failed_record, a_job, a_record

from zerogate.launch.errors import (
    ConfigurationWrongError,
    DeadlineExceededError,
    OutOfMemoryError,
    RankCrashedError,
)
from zerogate.launch.record_file import read_record
from zerogate.launch.result import collect_records
from zerogate.protocol.record import record_path


def test_collect_returns_records_sorted_by_rank(tmp_path: Path) -> None:
    records = (a_record(0), a_record(1, loss=(float("nan"),)))
    wrote(tmp_path, *reversed(records))
    found = collect_records(a_job(tmp_path), tmp_path, ended(tmp_path, rank_0=0, rank_1=0), COMMAND)
    assert [record.rank for record in found] == [0, 1]
    assert found[0] == records[0]
    assert found[1].loss[0] != found[1].loss[0]


def test_oom_record_raises_out_of_memory_error(tmp_path: Path) -> None:
    wrote(tmp_path, a_record(0), a_failed_record(1, outcome="oom", type="OutOfMemoryError"))
    error = failure(tmp_path, ended(tmp_path, rank_0=0, rank_1=77))
    assert isinstance(error, OutOfMemoryError)
    assert "rank 1 in train: OutOfMemoryError: it broke" in error.summary


@pytest.mark.parametrize("first", [0, 1])
def test_rank_that_failed_first_is_reported_as_cause(tmp_path: Path, first: int) -> None:
    wrote(
        tmp_path,
        a_failed_record(first, at=100.0, type="ValueError", traceback="the cause"),
        a_failed_record(1 - first, at=100.5, type="ConnectionError", traceback="what followed"),
    )
    error = failure(tmp_path, ended(tmp_path, rank_0=1, rank_1=1))
    assert isinstance(error, RankCrashedError)
    assert f"rank {first} in train: ValueError: it broke" in error.summary
    assert error.detail == "the cause"
    assert error.log == str(tmp_path / f"rank{first}.log")


def test_connection_error_after_oom_is_reported_as_oom(tmp_path: Path) -> None:
    wrote(
        tmp_path,
        a_failed_record(0, at=101.0, type="ConnectionError"),
        a_failed_record(1, at=100.0, outcome="oom"),
    )
    assert isinstance(failure(tmp_path, ended(tmp_path, rank_0=1, rank_1=77)), OutOfMemoryError)


def test_setting_not_applied_raises_configuration_wrong_error(tmp_path: Path) -> None:
    message = "zero_stage: the engine runs 0, expected 2"
    wrote(tmp_path, a_record(0), a_failed_record(1, type="NotAppliedError", message=message))
    error = failure(tmp_path, ended(tmp_path, rank_0=0, rank_1=1))
    assert isinstance(error, ConfigurationWrongError)
    assert f"rank 1: {message}" in error.summary


@pytest.mark.parametrize(
    ("code", "words"),
    [
        pytest.param(-9, "killed by SIGKILL", id="killed"),
        pytest.param(-11, "killed by SIGSEGV", id="segmentation fault"),
        pytest.param(3, "exit code 3", id="left"),
        pytest.param(0, "exit code 0", id="left as if all were well"),
    ],
)
def test_rank_without_record_is_reported_with_exit_status(
    tmp_path: Path, code: int, words: str
) -> None:
    wrote(tmp_path, a_record(0))
    (tmp_path / "rank1.log").write_text("its last words\n")
    error = failure(tmp_path, ended(tmp_path, rank_0=0, rank_1=code))
    assert isinstance(error, RankCrashedError)
    assert "rank 1 left without a record" in error.summary
    assert f"rank 1: {words}" in error.summary
    assert error.detail == "its last words"
    assert error.log == str(tmp_path / "rank1.log")


def test_real_time_signal_is_reported_by_number(tmp_path: Path) -> None:
    assert "35" in failure(tmp_path, ended(tmp_path, rank_0=0, rank_1=-35)).summary


def test_killed_rank_is_reported_if_only_peer_wrote_record(tmp_path: Path) -> None:
    wrote(tmp_path, a_failed_record(0, message="connection closed by peer"))
    assert "SIGKILL" in failure(tmp_path, ended(tmp_path, rank_0=1, rank_1=-9)).report()


@pytest.mark.parametrize(
    ("written", "words"),
    [
        pytest.param([], "ranks 0, 1 without a record", id="nobody is done"),
        pytest.param([0], "rank 1 without a record", id="one is done"),
        pytest.param(
            [0, 1],
            "every rank has written its record",
            id="all are done",
        ),
    ],
)
def test_exceeded_deadline_reports_ranks_without_record(
    tmp_path: Path, written: list[int], words: str
) -> None:
    wrote(tmp_path, *map(a_record, written))
    error = failure(tmp_path, ended(tmp_path, overdue="the launch's limit is 10 s"))
    assert isinstance(error, DeadlineExceededError)
    assert "still running after 12 s" in error.summary
    assert "(the launch's limit is 10 s)" in error.summary
    assert words in error.summary


def test_failed_rank_is_reported_instead_of_deadline(tmp_path: Path) -> None:
    wrote(tmp_path, a_failed_record(0))
    error = failure(tmp_path, ended(tmp_path, overdue="the launch's limit is 10 s", rank_0=1))
    assert isinstance(error, RankCrashedError)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(lambda text: "", "rank1.json: file: ", id="empty"),
        pytest.param(lambda text: text[: len(text) // 2], "rank1.json: file: ", id="cut off"),
        pytest.param(lambda text: "[]", "expected a rank record", id="not a record"),
        pytest.param(
            lambda text: json.dumps(json.loads(text) | {"parameters": "many"}),
            "rank1.json: parameters: ",
            id="a wrong type",
        ),
        pytest.param(
            lambda text: json.dumps(json.loads(text) | {"colour": 1}),
            "rank1.json: colour: ",
            id="an unknown key",
        ),
        pytest.param(
            lambda text: json.dumps(json.loads(text) | {"launch_id": "that launch"}),
            "a record of another launch (that launch)",
            id="of another launch",
        ),
        pytest.param(
            lambda text: json.dumps(json.loads(text) | {"rank": 0}),
            "a record of rank 0",
            id="of another rank",
        ),
    ],
)
def test_unusable_record_is_reported_as_crash_with_reason(
    tmp_path: Path, damage: Any, words: str
) -> None:
    wrote(tmp_path, a_record(0), a_record(1))
    path = record_path(tmp_path, 1)
    path.write_text(damage(path.read_text()))
    error = failure(tmp_path, ended(tmp_path, rank_0=0, rank_1=0))
    assert isinstance(error, RankCrashedError)
    assert "rank 1: " in error.summary
    assert words in error.summary


def test_records_are_unchanged_by_write_and_read(tmp_path: Path) -> None:
    wrote(tmp_path, a_record(0), a_failed_record(1))
    assert read_record(record_path(tmp_path, 0)) == a_record(0)
    assert read_record(record_path(tmp_path, 1)) == a_failed_record(1)


def test_finished_ranks_with_unclean_exit_are_reported_as_crash(tmp_path: Path) -> None:
    wrote(tmp_path, a_record(0), a_record(1))
    (tmp_path / "launch.log").write_text("free(): invalid pointer\n")
    error = failure(tmp_path, ended(tmp_path / "launch.log", torchrun=-6))
    assert isinstance(error, RankCrashedError)
    assert "not cleanly (torchrun: killed by SIGABRT)" in error.summary
    assert error.detail == "free(): invalid pointer"


def test_failure_report_contains_summary_traceback_log_and_command(tmp_path: Path) -> None:
    wrote(tmp_path, a_record(0), a_failed_record(1, traceback="line one\nline two\n"))
    error = failure(tmp_path, ended(tmp_path, rank_0=0, rank_1=1))
    lines = error.report().splitlines()
    assert lines[0] == f"crash: {error.summary}"
    assert "line one" in lines
    assert "line two" in lines
    assert f"log: {tmp_path / 'rank1.log'}" in lines
    assert f"reproduce: {COMMAND}" in lines


def test_long_binary_log_is_cut_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "rank0.log").write_bytes(b"\xff\xfe" * 20_000 + b"\nthe end\n")
    error = failure(tmp_path, ended(tmp_path, rank_0=1, rank_1=0))
    assert error.detail.endswith("the end")
    assert len(error.detail) < 20_000
