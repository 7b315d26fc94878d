"""Whatever happens to a launch: it is called what it is, nothing is left, and the next one measures
the same bytes. ``--length long`` (``tox run -e chaos``) is a hundred of them.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import psutil
import pytest

from tests.chaos.conftest import is_long
from tests.chaos.sabotage import HAPPENINGS, Moment, Sabotaged
from tests.launch.conftest import TOY, Launches, available
from zerogate.launch import process_tree
from zerogate.launch.deadlines import Deadlines
from zerogate.launch.errors import DeadlineExceededError, LaunchFailedError
from zerogate.launch.launcher import Launcher
from zerogate.metrics.table import METRICS
from zerogate.session.session import Session

SHORT = (
    "rank_stopped", "launcher_killed", "collective_skipped", "host_oom", "truncated_record",
    "log_of_100_MB", "children_left",
)  # fmt: skip
"""What happens once in the short form, under the fork server: what ``tests/launch`` does not do."""

LONG = {"forkserver": 5, "torchrun": 1, "accelerate": 1}
"""How often each happening happens under each launcher in the long form."""

STEP_SECONDS = 3.0
DEADLINES = Deadlines(
    launch=90.0, phases={"set-up": 60.0, "train": STEP_SECONDS, "eval": STEP_SECONDS}
)
REPORT_SECONDS = 10.0
"""How long after its deadline a hang is reported at the latest."""

SHARED_MEMORY = Path("/dev/shm")

PORTABLE = [name for name, metric in METRICS.items() if metric.scope == "portable"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "happening" not in metafunc.fixturenames:
        return
    cases = [("forkserver", name, 0) for name in SHORT]
    if is_long(metafunc.config):
        cases = [
            (launcher, name, index)
            for launcher, often in LONG.items()
            for index in range(often)
            for name in HAPPENINGS
        ]
    metafunc.parametrize(
        ("launcher", "happening", "seed"),
        cases,
        ids=[f"{launcher}-{name}-{index}" for launcher, name, index in cases],
    )


@pytest.fixture(scope="session")
def usual() -> dict[str, object]:
    """What the toy cell measures when nothing happens: filled by whoever is first."""
    return {}


def test_sabotaged_launch_is_classified_and_leaves_nothing_behind(
    launches: Launches, launcher: str, happening: str, seed: int, usual: dict[str, object]
) -> None:
    what = HAPPENINGS[happening]
    moment = _moment(random.Random(f"{launcher} {happening} {seed}"))
    calm = launches.session()
    available(calm, TOY)
    if not usual:
        usual.update(_portable(calm))
    segments = set(SHARED_MEMORY.iterdir())
    sabotaged: list[Sabotaged] = []

    def around(inner: Launcher) -> Launcher:
        sabotaged.append(Sabotaged(inner, what, moment))
        return sabotaged[0]

    session = launches.session(launcher, deadlines=DEADLINES, around=around)
    launches.fault(what.fault)
    if what.error is None:
        assert _portable(session) == usual
    else:
        with pytest.raises(LaunchFailedError) as caught:
            session.measure(TOY)
        report = caught.value.report()
        assert type(caught.value) is what.error, report
        assert what.words in report
        assert "reproduce: pytest -m cpu" in report
    assert sabotaged[0].acted == (what.act is not None), "it did not happen"
    if what.error is DeadlineExceededError:
        _was_in_time(session, report)
    _nothing_is_left(launches, segments)
    launches.fault("")
    assert _portable(launches.session()) == usual


def _moment(chance: random.Random) -> Moment:
    """Anywhere in training, or between set-up and evaluation."""
    return Moment("train", chance.randrange(0, 10))


def _portable(session: Session) -> dict[str, object]:
    measured = session.measure(TOY)
    return {name: measured.value(name) for name in PORTABLE}


def _was_in_time(session: Session, report: str) -> None:
    """With the stacks of all ranks, no later than so many seconds after the step's deadline."""
    assert "rank 0, pid" in report
    assert "rank 1, pid" in report
    assert report.count("train_cell") >= 2, "no stacks"
    folder: Path = session.options.report_folder / "launches" / TOY.id / "0"
    last = min(path.stat().st_mtime for path in folder.glob("rank*.heartbeat"))
    late = time.time() - last - STEP_SECONDS
    assert late < REPORT_SECONDS, f"reported {late:.0f} s after the deadline"


def _nothing_is_left(launches: Launches, segments: set[Path]) -> None:
    pids = launches.data / "pids"
    if pids.exists():
        for pid in map(int, pids.read_text().split()):
            assert not psutil.pid_exists(pid), f"process {pid} outlived the launch"
        pids.unlink()
    ranks = [one for one in process_tree.children() if "rank" in " ".join(one.cmdline())]
    forked = [one for one in ranks if one.ppid() != psutil.Process().pid]
    assert not forked, f"processes outlived the launch: {forked}"
    assert set(SHARED_MEMORY.iterdir()) <= segments
    assert not list(launches.root.glob("report-*/launches/*/*/scratch"))
