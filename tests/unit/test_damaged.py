"""Whatever is in a file that a session reads: one clear error or a valid value, never a traceback,
and the file stays as it was.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from damage import damaged
from hypothesis import given
from hypothesis import strategies as st
from records import a_job, a_record

from zerogate.config.strategy_file import ConfigError
from zerogate.launch.errors import RankCrashedError
from zerogate.launch.launcher import LaunchResult
from zerogate.launch.result import collect_records
from zerogate.launch.watchdog import read_heartbeat
from zerogate.protocol.atomic_write import write_json
from zerogate.protocol.heartbeat import heartbeat_path
from zerogate.protocol.record import record_path
from zerogate.session.resume import ENDED, KeptLaunches, run_path

MADE_UNDER = {"torch": "2.13.0", "host": "amd-epyc-2c"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


@given(data=st.data())
def test_damaged_record_is_collected_or_reported_in_one_line(
    folder: Path, data: st.DataObject
) -> None:
    write_json(record_path(folder, 0), a_record(0))
    valid = json.loads(record_path(folder, 0).read_text())
    text = data.draw(damaged(valid))
    record_path(folder, 1).write_text(text)
    job = a_job(folder)
    problem = ""
    try:
        collect_records(job, folder, LaunchResult(exit_codes={}, seconds=1.0, log=folder), "pytest")
    except RankCrashedError as error:
        problem = error.summary
    assert "\n" not in problem
    assert record_path(folder, 1).read_text() == text


@given(data=st.data())
def test_damaged_run_file_is_resumed_or_refused_in_one_line(
    folder: Path, data: st.DataObject
) -> None:
    assert KeptLaunches(folder, lambda: MADE_UNDER).run_id
    path = run_path(folder)
    text = data.draw(damaged(json.loads(path.read_text())))
    path.write_text(text)
    problem = "--resume: "
    try:
        KeptLaunches(folder, lambda: MADE_UNDER).resume()
    except ConfigError as error:
        problem = str(error)
    assert problem.startswith("--resume: ")
    assert "\n" not in problem
    assert path.read_text() == text


@given(data=st.data())
def test_damaged_ended_file_is_ignored_or_read_as_valid(folder: Path, data: st.DataObject) -> None:
    kept = KeptLaunches(folder, lambda: MADE_UNDER)
    job = a_job(folder)
    write_json(folder / "job.json", job)
    assert kept.run_id
    kept.keep(folder, LaunchResult(exit_codes={"rank 0": 0}, seconds=1.0, log=folder))
    valid = json.loads((folder / ENDED).read_text())
    (folder / ENDED).write_text(data.draw(damaged(valid)))
    resumed = KeptLaunches(folder, lambda: MADE_UNDER)
    resumed.resume()
    found = resumed.find(job, folder)
    assert found is None or isinstance(found[2].failed, bool)


@given(data=st.data())
def test_damaged_job_file_is_ignored_or_read_as_same_cell(
    folder: Path, data: st.DataObject
) -> None:
    kept = KeptLaunches(folder, lambda: MADE_UNDER)
    job = a_job(folder)
    assert kept.run_id
    kept.keep(folder, LaunchResult(exit_codes={}, seconds=1.0, log=folder))
    (folder / "job.json").write_text(data.draw(damaged(asdict(job))))
    resumed = KeptLaunches(folder, lambda: MADE_UNDER)
    resumed.resume()
    found = resumed.find(job, folder)
    assert found is None or found[0].cell == job.cell


@given(data=st.data())
def test_damaged_heartbeat_is_ignored_or_read_as_valid(folder: Path, data: st.DataObject) -> None:
    path = heartbeat_path(folder, 0)
    path.write_text(data.draw(damaged({"pid": 7, "phase": "train", "step": 3, "at": 5.25})))
    beat = read_heartbeat(folder, 0)
    assert beat is None or (isinstance(beat.pid, int) and isinstance(beat.at, float))


def test_resume_error_with_multiline_key_stays_on_one_line(folder: Path) -> None:
    run_path(folder).write_text('{"id": "a", "fingerprint": {"torch\\n": null}}')
    with pytest.raises(ConfigError, match=r"fingerprint\.torch\\n: ") as caught:
        KeptLaunches(folder, lambda: MADE_UNDER).resume()
    assert "\n" not in str(caught.value)
