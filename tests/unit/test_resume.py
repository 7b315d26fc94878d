"""An interrupted run goes on under what it was made under, and under nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from records import a_job

from zerogate.config.project import Project
from zerogate.config.strategy_file import ConfigError
from zerogate.environment.fingerprint import fingerprint, folder_state
from zerogate.launch.launcher import LaunchResult
from zerogate.protocol.atomic_write import write_json
from zerogate.protocol.job import Job, job_path
from zerogate.session.resume import KeptLaunches, run_path

NOW = {"torch": "2.13.0", "deepspeed": "0.19.8"}


def interrupted_run(folder: Path) -> Job:
    """Run ``folder`` for one launch, which is kept."""
    kept = KeptLaunches(folder, lambda: NOW)
    job = replace(a_job(folder), run=kept.run_id)
    write_json(job_path(folder), job)
    kept.keep(folder, LaunchResult(exit_codes={"rank 0": 0, "rank 1": 0}, seconds=1.5, log=folder))
    return job


def again(job: Job) -> Job:
    """The same launch, asked for by another process."""
    return replace(job, launch_id="a later one", controller_pid=2)


def test_kept_launch_is_found_after_resume(tmp_path: Path) -> None:
    job = interrupted_run(tmp_path)
    kept = KeptLaunches(tmp_path, lambda: NOW)
    kept.resume()
    assert kept.run_id == job.run
    found = kept.find(again(job), tmp_path)
    assert found is not None
    theirs, folder, ended = found
    assert (theirs, folder) == (job, tmp_path)
    assert ended == LaunchResult(exit_codes={"rank 0": 0, "rank 1": 0}, seconds=1.5, log=tmp_path)


@pytest.mark.parametrize(
    "changes",
    [{"steps": 3}, {"seed": 1}, {"micro_batch_size": 4}, {"data_folder": "elsewhere"}],
    ids=str,
)
def test_kept_launch_of_changed_job_is_not_found(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    job = interrupted_run(tmp_path)
    kept = KeptLaunches(tmp_path, lambda: NOW)
    kept.resume()
    assert kept.find(replace(again(job), **changes), tmp_path) is None  # type: ignore[arg-type]


def test_launch_of_process_that_joined_shared_run_is_found(tmp_path: Path) -> None:
    ours = KeptLaunches(tmp_path, lambda: NOW)
    ours.share()
    theirs = KeptLaunches(tmp_path, lambda: {"CUDA_VISIBLE_DEVICES": "GPU-1"})
    theirs.join()
    job = replace(a_job(tmp_path), run=theirs.run_id)
    write_json(job_path(tmp_path), job)
    ended = LaunchResult(exit_codes={}, seconds=1.5, log=tmp_path, alone=False)
    theirs.keep(tmp_path, ended)
    asked = replace(again(job), run=ours.run_id)
    assert ours.find(asked, tmp_path) == (job, tmp_path, ended)


def test_shared_run_without_resume_finds_nothing_of_earlier_run(tmp_path: Path) -> None:
    job = interrupted_run(tmp_path)
    kept = KeptLaunches(tmp_path, lambda: NOW)
    kept.share()
    assert kept.find(replace(again(job), run=kept.run_id), tmp_path) is None


def test_shared_run_after_resume_is_the_resumed_one(tmp_path: Path) -> None:
    job = interrupted_run(tmp_path)
    kept = KeptLaunches(tmp_path, lambda: NOW)
    kept.resume()
    kept.share()
    assert kept.find(again(job), tmp_path) is not None


def test_kept_launch_without_resume_is_not_found(tmp_path: Path) -> None:
    job = interrupted_run(tmp_path)
    kept = KeptLaunches(tmp_path, lambda: NOW)
    assert kept.run_id != job.run
    assert kept.find(again(job), tmp_path) is None


def test_kept_launch_of_earlier_run_is_not_found(tmp_path: Path) -> None:
    job = interrupted_run(tmp_path)
    assert KeptLaunches(tmp_path, lambda: NOW).run_id
    kept = KeptLaunches(tmp_path, lambda: NOW)
    kept.resume()
    assert kept.find(replace(again(job), run=kept.run_id), tmp_path) is None


def test_kept_launch_with_damaged_job_is_not_found(tmp_path: Path) -> None:
    job = interrupted_run(tmp_path)
    kept = KeptLaunches(tmp_path, lambda: NOW)
    kept.resume()
    job_path(tmp_path).write_text("[" * 100_000)
    assert kept.find(again(job), tmp_path) is None


def test_launch_without_recorded_end_is_not_found(tmp_path: Path) -> None:
    job = interrupted_run(tmp_path)
    (tmp_path / "ended.json").unlink()
    kept = KeptLaunches(tmp_path, lambda: NOW)
    kept.resume()
    assert kept.find(again(job), tmp_path) is None


def test_finished_run_is_not_resumed(tmp_path: Path) -> None:
    job = interrupted_run(tmp_path)
    kept = KeptLaunches(tmp_path, lambda: NOW)
    kept.resume()
    kept.finish()
    later = KeptLaunches(tmp_path, lambda: NOW)
    later.resume()
    assert later.run_id != job.run


def test_resume_with_unreadable_file_raises_config_error(tmp_path: Path) -> None:
    def unreadable() -> dict[str, str]:
        raise PermissionError(13, "Permission denied", "workloads/secret.py")

    with pytest.raises(ConfigError, match=r"--resume: workloads/secret.py: Permission denied"):
        KeptLaunches(tmp_path, unreadable).resume()


def test_resume_with_changed_fingerprint_names_changes(tmp_path: Path) -> None:
    interrupted_run(tmp_path)
    kept = KeptLaunches(tmp_path, lambda: {"torch": "2.14.0", "deepspeed": "0.19.8", "apex": "1"})
    with pytest.raises(ConfigError) as caught:
        kept.resume()
    assert "(apex: absent -> 1; torch: 2.13.0 -> 2.14.0)" in str(caught.value)


def test_resume_without_interrupted_run_begins_new_run(tmp_path: Path) -> None:
    kept = KeptLaunches(tmp_path, lambda: NOW)
    kept.resume()
    assert kept.run_id == json.loads(run_path(tmp_path).read_text())["id"]


def test_new_run_removes_scratch_of_killed_session(tmp_path: Path) -> None:
    scratch = tmp_path / "launches" / "a-cell" / "0" / "scratch"
    scratch.mkdir(parents=True)
    (scratch / "swapped").write_bytes(b"parameters")
    assert KeptLaunches(tmp_path, lambda: NOW).run_id
    assert not scratch.exists()


@pytest.mark.parametrize("name", ["configs/zero2.yaml", "workloads/toy.py", "workloads/data/a.csv"])
def test_fingerprint_changes_with_file_of_folder(tmp_path: Path, name: str) -> None:
    for folder in ("configs", "workloads/data"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / name).write_text("before")
    before = fingerprint(Project(tmp_path), {}, None)
    assert fingerprint(Project(tmp_path), {}, None) == before
    (tmp_path / name).write_text("after!")
    after = fingerprint(Project(tmp_path), {}, None)
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {f"{name.split('/', maxsplit=1)[0]}/"}


def test_fingerprint_contains_settings_and_versions(tmp_path: Path) -> None:
    found = fingerprint(Project(tmp_path), {"--launcher": "torchrun"}, None)
    assert found["--launcher"] == "torchrun"
    assert {"torch", "deepspeed", "accelerate", "python", "host"} <= found.keys()


def test_folder_state_changes_with_file_size(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a")
    before = folder_state(tmp_path)
    assert folder_state(tmp_path) == before
    (tmp_path / "rows.csv").write_text("ab")
    assert folder_state(tmp_path) != before


def test_folder_state_follows_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mrpc").symlink_to(tmp_path / "elsewhere")
    before = folder_state(tmp_path / "data")
    (tmp_path / "elsewhere" / "rows.csv").write_text("a")
    assert folder_state(tmp_path / "data") != before
