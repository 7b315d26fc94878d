"""However a run is interrupted: no process outlives it, what was measured is on disk, and resumed it
ends with the results of one that was not.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.conftest import is_long
from tests.chaos.project import COMMAND, STRATEGIES, Project, heed_signals, left_of, processes_of

LEAVE_SECONDS = 15.0
TIMES = 4
"""Of each way to interrupt, in the long form."""

Interrupt = Callable[["subprocess.Popen[str]"], None]


def ctrl_c(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)


def ctrl_c_twice(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)


def terminate(process: subprocess.Popen[str]) -> None:
    process.terminate()


def hang_up(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGHUP)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()


WAYS: dict[str, Interrupt] = {
    "kill": kill,
    "terminate": terminate,
    "ctrl_c": ctrl_c,
    "ctrl_c_twice": ctrl_c_twice,
    "hang_up": hang_up,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "way" not in metafunc.fixturenames:
        return
    long = is_long(metafunc.config)
    ways = list(WAYS) if long else ["kill"]
    cases = [(way, index) for index in range(TIMES if long else 1) for way in ways]
    metafunc.parametrize(("way", "seed"), cases, ids=[f"{way}-{index}" for way, index in cases])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose run nothing happened to; the others are copies of it, paths aside."""
    project = Project(tmp_path_factory.mktemp("undisturbed") / "project")
    code, output = project.run()
    assert code == 0, output
    return project


def test_interrupted_run_resumes_to_results_of_complete_run(
    tmp_path: Path, undisturbed: Project, way: str, seed: int
) -> None:
    chance = random.Random(f"{way} {seed}")
    project = Project(tmp_path / "project")
    process = project.start()
    strategy = chance.choice(STRATEGIES)
    project.wait_until(strategy, chance.choice(["set-up", "train", "eval"]), process)
    started = processes_of(process)
    WAYS[way](process)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert left_of(started, LEAVE_SECONDS) == [], "processes outlived the run"
    assert "INTERNALERROR" not in output
    measured = STRATEGIES.index(strategy)
    if measured:
        assert len(project.results()["measurements"]) >= measured
    code, output = project.run("--resume", "--require-cells")
    assert code == 0, output
    assert project.results()["environment"]["resumed_launches"] >= measured
    assert project.lasting_results() == undisturbed.lasting_results()
    assert not list(project.report.glob("launches/*/*/scratch"))


@pytest.fixture
def _at_length(pytestconfig: pytest.Config) -> None:
    if not is_long(pytestconfig):
        pytest.skip("only with --length long: tox run -e chaos")


@pytest.mark.usefixtures("_at_length")
def test_closed_terminal_ends_all_processes_and_keeps_results(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    master, slave = os.openpty()
    terminal = {"stdin": slave, "stdout": slave, "stderr": slave, "text": True}
    command = project.start(preexec_fn=_own_terminal, **terminal)
    os.close(slave)
    project.wait_until("fsdp2", "train", command)
    started = processes_of(command)
    os.close(master)
    command.wait(60)
    assert left_of(started, LEAVE_SECONDS) == []
    assert [one["cell"] for one in project.results()["measurements"]] == ["toy_faults-ddp-w2-cpu"]


def _own_terminal() -> None:
    """In the child: a session of its own, whose terminal is its standard input."""
    import fcntl
    import termios

    heed_signals()
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


FILLING = """
import os
from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_zerogate_launch(job, folder):
    if job.cell.strategy == "fsdp2" and not Path("freed").exists():
        with open("zerogate-report/filler", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
"""

ON_A_SMALL_DISK = """
mount -t tmpfs -o size=48m none zerogate-report
"$@"
echo "pytest ended with $?"
cp zerogate-report/results.json first.json
rm zerogate-report/filler
touch freed
"$@" --resume
echo "pytest ended with $?"
cp zerogate-report/results.json second.json
"""
UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")


def test_full_disk_during_run_is_reported_and_run_resumes(tmp_path: Path) -> None:
    if (
        shutil.which("unshare") is None
        or subprocess.run([*UNSHARE, "true"], check=False).returncode
    ):
        pytest.skip("needs unshare(1) and user namespaces, to mount a small disk")
    project = Project(tmp_path / "project")
    project.report.mkdir()
    (project.folder / "conftest.py").write_text(FILLING)
    found = subprocess.run(
        [*UNSHARE, "sh", "-c", ON_A_SMALL_DISK, "sh", *COMMAND],
        cwd=project.folder,
        check=True,
        capture_output=True,
        text=True,
    )
    output = found.stdout
    (tmp_path / "output.txt").write_text(output)
    assert "pytest ended with 1" in output
    assert "pytest ended with 0" in output
    assert "disk: toy_faults-fsdp2-w2-cpu: " in output
    assert "cannot write" in output
    assert "INTERNALERROR" not in output
    first, second = (
        json.loads((project.folder / name).read_text()) for name in ("first.json", "second.json")
    )
    assert [one["cell"] for one in first["measurements"]] == ["toy_faults-ddp-w2-cpu"]
    assert len(second["measurements"]) == len(STRATEGIES)
    assert second["environment"]["resumed_launches"] == 1


@pytest.mark.usefixtures("_at_length")
def test_concurrent_runs_wait_and_give_results_of_single_run(
    tmp_path: Path, undisturbed: Project
) -> None:
    """One launch at a time on this machine: both measure what each would measure alone."""
    projects = [Project(tmp_path / name) for name in ("one", "other")]
    processes = [project.start() for project in projects]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert any("waiting for process" in output for output in outputs)
    for project in projects:
        assert project.lasting_results() == undisturbed.lasting_results()
