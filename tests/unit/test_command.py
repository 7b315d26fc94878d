"""The command launcher: what the command sees, how its end is told, and that nothing survives it."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from records import a_cell, a_job

from zerogate.launch import command
from zerogate.launch.command import CommandLauncher
from zerogate.launch.deadlines import Deadlines
from zerogate.launch.launcher import LaunchResult
from zerogate.launch.watchdog import Watchdog
from zerogate.protocol import prctl

Launch = Callable[..., LaunchResult]


@pytest.fixture(autouse=True)
def _subreaper_only_here() -> Iterator[None]:
    yield
    ctypes.CDLL(None).prctl(prctl._PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    """Launch a shell script in place of torchrun."""

    def launch(script: str, deadline_seconds: float = 60.0, **environment: str) -> LaunchResult:
        monkeypatch.setitem(command.COMMANDS, "torchrun", lambda job, folder: ["sh", "-c", script])
        job = a_job(tmp_path)
        watch = Watchdog(job, tmp_path, Deadlines(launch=deadline_seconds))
        return CommandLauncher("torchrun").launch(
            job, tmp_path, dict(os.environ) | environment, watch
        )

    return launch


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("script", "code", "failed"),
    [
        pytest.param("exit 0", 0, False, id="well"),
        pytest.param("exit 3", 3, True, id="badly"),
        pytest.param("kill -9 $$", -9, True, id="killed"),
    ],
)
def test_command_exit_code_is_reported(
    launch: Launch, script: str, code: int, failed: bool
) -> None:
    ended = launch(script)
    assert ended.exit_codes == {"torchrun": code}
    assert ended.failed == failed
    assert not ended.overdue


def test_command_past_deadline_is_ended_with_descendants(launch: Launch, tmp_path: Path) -> None:
    ended = launch(
        "setsid sleep 100 & echo $! > pids; setsid sh -c \"trap '' TERM; echo \\$\\$ >> pids; "
        'sleep 100" & echo $$ >> pids; wait',
        deadline_seconds=1.0,
    )
    assert ended.overdue == "the launch's limit is 1 s"
    assert ended.failed
    assert ended.exit_codes == {}
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 3
    assert [pid for pid in pids if is_alive(pid)] == []


@pytest.mark.parametrize("code", [0, 1])
def test_processes_left_by_command_are_ended(launch: Launch, tmp_path: Path, code: int) -> None:
    ended = launch(f"setsid sleep 100 & echo $! > pids; exit {code}")
    assert ended.exit_codes == {"torchrun": code}
    assert not is_alive(int((tmp_path / "pids").read_text()))


def test_process_running_before_launch_is_left_alone(launch: Launch) -> None:
    with psutil.Popen(["sleep", "100"]) as before:
        launch("exit 0")
        assert is_alive(before.pid)
        before.kill()


def test_process_started_while_command_ends_is_ended(launch: Launch, tmp_path: Path) -> None:
    launch(
        "trap 'setsid sleep 100 & echo $! > late; exit' TERM; while :; do sleep 0.1; done",
        deadline_seconds=1.0,
    )
    late = int((tmp_path / "late").read_text())
    survived = is_alive(late)
    if survived:
        psutil.Process(late).kill()
    assert not survived


def test_log_contains_all_output_of_command(launch: Launch) -> None:
    ended = launch("yes 'a line on the screen' | head -n 100000; echo 'an error' >&2")
    lines = ended.log.read_text().splitlines()
    assert lines.count("a line on the screen") == 100_000
    assert lines[-1] == "an error"


def test_command_runs_in_project_with_rank_environment(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = launch(
        'pwd -P; echo "$ZEROGATE_WORD"; read line || echo "no input"', ZEROGATE_WORD="hi"
    )
    assert ended.log.read_text().splitlines() == [str(tmp_path.resolve()), "hi", "no input"]


@pytest.mark.parametrize("precision", [["no"], ["fp16"], []])
def test_accelerate_command_has_config_ranks_and_precision(
    tmp_path: Path, precision: list[str]
) -> None:
    job = replace(a_job(tmp_path, a_cell(world_size=4)), precision=next(iter(precision), None))
    words = command.accelerate_command(job, tmp_path)

    def given(option: str) -> list[str]:
        return [words[index + 1] for index, word in enumerate(words) if word == option]

    assert words[:3] == [sys.executable, "-m", "accelerate.commands.launch"]
    assert given("--config_file") == [job.config_file]
    assert given("--num_processes") == ["4"]
    assert given("--mixed_precision") == precision
    assert words[-3:] == ["--module", "zerogate.worker.main", str(tmp_path)]


def test_torchrun_command_has_number_of_ranks(tmp_path: Path) -> None:
    words = command.torchrun_command(a_job(tmp_path, a_cell(world_size=4)), tmp_path)
    assert words[words.index("--nproc-per-node") + 1] == "4"
    assert words[-3:] == ["--module", "zerogate.worker.main", str(tmp_path)]
