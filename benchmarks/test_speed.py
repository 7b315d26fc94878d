"""What the project promises about speed, measured side by side; prints ratios, judges nothing.

tox run -e benchmarks
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from zerogate.config.options import Options
from zerogate.launch.command import CommandLauncher
from zerogate.launch.errors import OutOfMemoryError
from zerogate.launch.forkserver import ForkserverLauncher
from zerogate.protocol.cell import Cell
from zerogate.protocol.job import ProbeRequest
from zerogate.session.batch_size import find_batch_size
from zerogate.session.runner import Runner
from zerogate.session.session import Session

ROOT = Path(__file__).parents[1]
LAUNCHERS = {
    "forkserver": ForkserverLauncher,
    "accelerate": lambda _: CommandLauncher("accelerate"),
}


def session(launcher: str, folder: Path) -> Session:
    folder.mkdir(parents=True, exist_ok=True)
    options = Options(root=ROOT, report_folder=folder, launcher=launcher)
    make = LAUNCHERS[launcher]
    return Session(options, launchers={launcher: lambda: make(folder)})


@pytest.mark.parametrize("strategy", ["ddp", "zero2", "zero3_offload"])
def test_forkserver_launch_cost_against_accelerate_is_printed(tmp_path, strategy):
    """The same cell through both, in turn: A B A B A B, after the fork server has started.

    What a launch costs is all but the training and the evaluation, which are the same.
    """
    cell = Cell(workload="gpt2xl_wikitext2", strategy=strategy, world_size=2, tier="cpu")
    forked = session("forkserver", tmp_path / "forked")
    if reason := forked.setup.unavailable(cell):
        pytest.skip(reason)
    forked.measure(cell)
    laps: dict[str, list[tuple[float, float]]] = {name: [] for name in LAUNCHERS}
    try:
        for _ in range(3):
            forked.measurements.clear()
            laps["forkserver"].append(_timed(forked, cell))
            laps["accelerate"].append(_timed(session("accelerate", tmp_path / "command"), cell))
    finally:
        forked.runner.close()
    print(f"\n{cell.id}, seconds; what the launch costs (with training and evaluation)")
    for name, values in laps.items():
        shown = "  ".join(f"{cost:5.1f} ({whole:5.1f})" for cost, whole in values)
        print(f"  {name:10s} {shown}")
    pairs = list(zip(laps["forkserver"], laps["accelerate"], strict=True))
    for index, what in enumerate(("of the launch", "of everything")):
        ratios = [ours[index] / theirs[index] for ours, theirs in pairs]
        print(f"  ratio {what}, median {statistics.median(ratios):.2f}")


def _timed(running: Session, cell: Cell) -> tuple[float, float]:
    """Seconds of one launch: without training and evaluation, and in all."""
    start = time.perf_counter()
    measurement = running.measure(cell)
    whole = time.perf_counter() - start
    epochs = measurement.settings["epochs"]
    work = epochs * measurement.scalar("epoch_seconds") + measurement.scalar("eval_seconds")
    return whole - work, whole


@pytest.mark.parametrize("strategy", ["ddp", "zero2"])
def test_batch_size_search_matches_doubling_and_bisection(tmp_path, strategy):
    """The largest batch from nothing, against what a person does with ``accelerate launch``: double
    until it runs out, then bisect. The same three steps of each size, a launch for each.
    """
    cell = Cell(workload="deberta_mrpc", strategy=strategy, world_size=2, tier="cpu")
    forked = session("forkserver", tmp_path / "forked")
    if reason := forked.setup.unavailable(cell):
        pytest.skip(reason)
    try:
        forked.runner.probe(cell, ProbeRequest(kind="train", sizes=(1,)), 0)  # Starts the server.
        start = time.perf_counter()
        found, _ = find_batch_size(partial(forked.runner.probe, cell), "train", None)
        ours = time.perf_counter() - start
    finally:
        forked.runner.close()
    start = time.perf_counter()
    size, launches = _doubled_and_bisected(session("accelerate", tmp_path / "command").runner, cell)
    theirs = time.perf_counter() - start
    assert size == found.size
    print(f"\n{cell.id}: {size} samples fit")
    print(f"  zerogate {ours:6.1f} s, {found.launches} launches")
    print(
        f"  doubling and bisecting {theirs:6.1f} s, {launches} launches; {theirs / ours:.1f} times"
    )


def _doubled_and_bisected(runner: Runner, cell: Cell) -> tuple[int, int]:
    """The largest size that fits, and how many launches that took."""
    launches = itertools.count()

    def fits(size: int) -> bool:
        try:
            runner.probe(cell, ProbeRequest(kind="train", sizes=(size,)), next(launches))
        except OutOfMemoryError:
            return False
        return True

    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low, next(launches)


def test_collection_time_is_printed():
    """``pytest --collect-only`` over the whole suite, as a process."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "cpu"]
    laps = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        laps.append(time.perf_counter() - start)
    print(f"\ncollect-only: median {statistics.median(laps):.2f} s of {len(laps)}")


def test_cpu_matrix_time_is_printed(tmp_path):
    """``pytest -m cpu`` as a process, what must be compiled already built."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "cpu",
        "-q",
        f"--report-dir={tmp_path}",
    ]
    start = time.perf_counter()
    result = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - start
    print(f"\nthe cpu matrix: {seconds:.0f} s; {result.stdout.splitlines()[-1]}")
