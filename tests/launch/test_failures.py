"""A launch that goes wrong is called what it is, leaves nothing behind, and the next one runs."""

import dataclasses
import os
import select
import subprocess
import sys

import psutil
import pytest

from tests.launch.conftest import ROOT, TOY, available
from zerogate.launch import process_tree
from zerogate.launch.errors import (
    ConfigurationWrongError,
    DeadlineExceededError,
    OutOfMemoryError,
    RankCrashedError,
)

RAISE = ("raise", RankCrashedError, "rank 1 in train: ValueError: a fault in the workload")
OOM = ("oom", OutOfMemoryError, "rank 1 in train: OutOfMemoryError: CPU out of memory")
KILL = ("kill", RankCrashedError, "rank 1 left without a record (rank 1: killed by SIGKILL")
UNENCODABLE = ("unencodable", RankCrashedError, "half a character: \\ud800")
LEAVE = ("leave", RankCrashedError, "rank 1 left without a record (rank 1: exit code 0")


@pytest.mark.parametrize(
    ("launcher", "fault", "kind", "words"),
    [
        pytest.param("forkserver", *RAISE, id="forkserver-raise"),
        pytest.param("forkserver", *OOM, id="forkserver-oom"),
        pytest.param("forkserver", *KILL, id="forkserver-kill"),
        pytest.param("forkserver", *LEAVE, id="forkserver-leave"),
        pytest.param("forkserver", *UNENCODABLE, id="forkserver-unencodable"),
        pytest.param("torchrun", *KILL[:2], "1 left without a record", id="torchrun-kill"),
    ],
)
def test_failing_rank_is_reported_and_next_launch_succeeds(launches, launcher, fault, kind, words):
    session = launches.session(launcher, deadline_seconds=60)
    available(session, TOY)
    launches.fault(fault)
    with pytest.raises(kind) as error:
        session.measure(TOY)
    assert words in error.value.summary
    assert "pytest -m cpu --workload toy_faults --strategy ddp" in error.value.report()
    launches.fault("")
    other = dataclasses.replace(TOY, world_size=1)
    assert launches.session().measure(other).value("loss_left") is not None


def test_crash_report_contains_traceback_of_failing_rank(launches):
    session = launches.session()
    available(session, TOY)
    launches.fault("raise")
    with pytest.raises(RankCrashedError) as error:
        session.measure(TOY)
    report = error.value.report()
    assert "toy_faults.py" in report
    assert 'raise ValueError("a fault in the workload")' in report


@pytest.mark.parametrize("launcher", ["forkserver", "torchrun"])
def test_launch_files_contain_no_secret_of_environment(launches, launcher, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_planted_token")
    monkeypatch.setenv("MY_API_KEY", "planted_key")
    session = launches.session(launcher)
    available(session, TOY)
    launches.fault("confess")
    with pytest.raises(RankCrashedError, match="what I know"):
        session.measure(TOY)
    files = [path for path in session.options.report_folder.rglob("*") if path.is_file()]
    assert len(files) >= 5, "job, logs, records"
    for path in files:
        assert b"planted" not in path.read_bytes(), path


@pytest.mark.parametrize(("launcher", "deadline_seconds"), [("forkserver", 10), ("torchrun", 40)])
def test_hanging_launch_is_ended_at_deadline_with_all_processes(
    launches, launcher, deadline_seconds
):
    session = launches.session(launcher, deadline_seconds=deadline_seconds)
    available(session, TOY)
    launches.fault("hang")
    with pytest.raises(DeadlineExceededError, match="still running after"):
        session.measure(TOY)
    for pid in map(int, (launches.data / "pids").read_text().split()):
        assert not psutil.pid_exists(pid), f"process {pid} outlived the launch"


def test_strategy_other_than_requested_is_configuration_error(launches):
    cell = dataclasses.replace(TOY, strategy="zero1")
    asked = launches.session().setup.strategy(cell).requested(cell)
    session = launches.session(requested={**asked, "zero_stage": 2, "offload_param": "cpu"})
    available(session, cell)
    with pytest.raises(ConfigurationWrongError) as error:
        session.measure(cell)
    assert "zero_stage is 1 instead of 2" in error.value.summary
    assert "offload_param is 'none' instead of 'cpu'" in error.value.summary


CONTROLLER = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.launch.conftest import KeptForkserver, Launches, TOY
launches = Launches(Path({project!r}), KeptForkserver(Path({project!r})))
launches.fault("hang")
launches.session({launcher!r}).measure(TOY)
"""


@pytest.mark.parametrize("launcher", ["forkserver", "torchrun"])
def test_process_left_by_rank_is_ended_and_next_launch_succeeds(launches, launcher):
    session = launches.session(launcher)
    available(session, TOY)
    launches.fault("stray")
    session.measure(TOY)
    assert not psutil.pid_exists(int((launches.data / "pids").read_text()))
    # The next cell runs; that one needs no torchrun, which takes long to start.
    launches.session().measure(dataclasses.replace(TOY, strategy="zero1"))


@pytest.mark.parametrize("launcher", ["forkserver", "torchrun"])
def test_ranks_end_when_controller_is_killed(launches, launcher):
    available(launches.session(), TOY)
    launches.fault("hang")
    pids = launches.data / "pids"
    os.mkfifo(pids)
    script = CONTROLLER.format(root=str(ROOT), project=str(launches.root), launcher=launcher)
    controller = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    # The pipe is read when rank 1 has got to where it hangs; open for both, opening never waits.
    pipe = os.open(pids, os.O_RDWR)
    readable, _, _ = select.select([pipe], [], [], 90)
    assert readable, f"rank 1 never got there; the controller's exit code is {controller.poll()}"
    _, child = map(int, os.read(pipe, 100).split())
    os.close(pipe)
    started = process_tree.descendants([controller.pid])[1:]
    ours = [process for process in started if process.pid != child]
    assert len(ours) >= 3, "the launcher and two ranks"
    controller.kill()
    controller.wait()
    _, left = psutil.wait_procs(ours, timeout=20)
    orphan = psutil.Process(child)
    orphan.kill()
    orphan.wait(timeout=20)
    assert not left, f"still there 20 s after their controller was killed: {left}"
