"""Batch sizes of two cells searched side by side on two cards that are none (``two_cards``)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.launch.pretended_card import CONTEXT_BYTES, KERNEL_BYTES
from tests.side_by_side.two_cards.sitecustomize import CARDS
from zerogate.worker.cuda_memory import GROWTH_BYTES

BUDGET = 2**20 + CONTEXT_BYTES + KERNEL_BYTES + GROWTH_BYTES
"""Of a process, in bytes: 1 MiB of it is the allocator's once its libraries are loaded."""
ROOT = Path(__file__).parents[2]
CELLS = ("toy_faults-zero1-w1-gpu", "toy_others-zero1-w1-gpu")

STRATEGY = """
compute_environment: LOCAL_MACHINE
distributed_type: DEEPSPEED
deepspeed_config:
  deepspeed_config_file: configs/small.json
  zero3_init_flag: false
num_machines: 1
machine_rank: 0
main_training_function: main
use_cpu: false
"""
AUTO = ("gradient_accumulation_steps", "gradient_clipping", "train_batch_size",
        "train_micro_batch_size_per_gpu")  # fmt: skip
SMALL_BUCKETS = {"stage": 1, "reduce_bucket_size": 10**5, "allgather_bucket_size": 10**5}
CONFTEST = """
from zerogate.session import rank_setup

rank_setup.cuda_lacks = lambda environment: ""  # torch sees no device.
"""


@dataclass(frozen=True)
class Launch:
    """A launch that ended: its cell, when it began and ended by the times of files, and its card."""

    cell: str
    name: str
    began: int
    ended: int
    alone: bool
    card: str

    def overlaps(self, other: Launch) -> bool:
        return self.began < other.ended and other.began < self.ended


@dataclass(frozen=True)
class Run:
    """A finished run of pytest over the project."""

    code: int
    output: str
    report: Path

    def launches(self) -> list[Launch]:
        found = []
        for ended in sorted(self.report.glob("launches/*/*/ended.json")):
            folder = ended.parent
            record = json.loads((folder / "rank0.json").read_text())
            found.append(
                Launch(
                    cell=folder.parent.name,
                    name=folder.name,
                    began=(folder / "job.json").stat().st_mtime_ns,
                    ended=ended.stat().st_mtime_ns,
                    alone=json.loads(ended.read_text())["alone"],
                    card=record["device"]["uuid"],
                )
            )
        return found

    def searched(self) -> dict[str, dict[str, Any]]:
        """What was found of each cell, but its speed and the number of launches."""
        found = json.loads((self.report / "results.json").read_text())["batch_sizes"]
        assert all(one["samples_per_second"] > 0 for one in found)
        left_out = {"samples_per_second": 0, "launches": 0}
        return {one["cell"]: one | left_out for one in found}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    shutil.copytree(ROOT / "tests" / "launch" / "project", root)
    workloads, configs = root / "workloads", root / "configs"
    shutil.copy(workloads / "toy_faults.py", workloads / "toy_others.py")
    configs.mkdir()
    (configs / "zero1.yaml").write_text(STRATEGY)
    engine = dict.fromkeys(AUTO, "auto") | {"bf16": {"enabled": True}}
    (configs / "small.json").write_text(json.dumps(engine | {"zero_optimization": SMALL_BUCKETS}))
    shutil.copytree(ROOT / "src" / "zerogate" / "suite", root / "claims")
    (root / "pytest.ini").write_text(
        "[pytest]\ntestpaths = claims\nzerogate_deadline_seconds = 300\n"
    )
    (root / "conftest.py").write_text(CONFTEST)
    return root


def start(project: Path, name: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    path = [str(Path(__file__).parent / "two_cards"), str(ROOT), *sys.path]
    command = [
        *(sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider"),
        *("--strategy", "zero1", "--world-size", "1", "--device-memory", f"{BUDGET}B"),
        *("--launcher", "torchrun", "--missing-baseline", "skip"),
        *(f"--report-dir={project / name}", *arguments),
    ]
    environment = (
        os.environ
        | variables
        | {
            "PYTHONPATH": os.pathsep.join(path),
            "DS_ACCELERATOR": "cpu",  # DeepSpeed computes on what there is.
        }
    )
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    return subprocess.Popen(
        command,
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(project: Path, name: str, *arguments: str, **variables: str) -> Run:
    process = start(project, name, *arguments, **variables)
    output, _ = process.communicate()
    return Run(process.returncode, output, project / name)


def test_searches_run_side_by_side_on_disjoint_cards_and_timed_launches_alone(project, tmp_path):
    meet = tmp_path / "meet"
    os.mkfifo(meet)
    timed = ("-k", "max_micro_batch_size or (epoch_seconds and toy_faults)")
    beside = run(project, "beside", "--jobs", "2", *timed, ZEROGATE_TEST_MEET=str(meet))
    assert beside.code == pytest.ExitCode.OK, beside.output
    launches = beside.launches()

    # The first probes waited for each other, so both searches ran at the same time.
    searches = [one for one in launches if not one.alone]
    assert {one.name for one in searches} >= {"train-batch-0", "train-batch-1"}
    assert {one.cell for one in searches} == {*CELLS}
    pairs = [pair for pair in combinations(launches, 2) if pair[0].overlaps(pair[1])]
    assert pairs, "the first probes overlap"
    assert all(one.card != other.card for one, other in pairs), pairs
    assert {one.card for one in searches} == {*CARDS}

    alone = [one for one in launches if one.alone]
    assert {one for pair in pairs for one in pair}.isdisjoint(alone), pairs
    probes = {cell: [one for one in launches if one.cell == cell] for cell in CELLS}
    training = probes[CELLS[0]].pop(0)
    assert (training.name, training.alone) == ("0", True)
    for *before, last in probes.values():
        assert not any(one.alone for one in before)
        assert last.alone, "the speed at the answer is measured once more"
    assert f"{len(launches)} launches, {len(searches)} of them side by side" in beside.output

    one_cell = ("-k", "max_micro_batch_size", "--workload", "toy_others")
    one_by_one = run(project, "one-by-one", *one_cell)
    assert one_by_one.code == pytest.ExitCode.OK, one_by_one.output
    assert all(one.alone and one.card == CARDS[0] for one in one_by_one.launches())
    assert one_by_one.searched()[CELLS[1]] == beside.searched()[CELLS[1]]


def test_sigterm_ends_controllers_and_ranks_side_by_side(project):
    process = start(project, "ended", "--jobs", "2", "-k", "max_micro_batch_size")
    pytest_itself = psutil.Process(process.pid)
    while process.poll() is None and len(ranks(pytest_itself)) < 2:
        time.sleep(0.2)
    assert process.poll() is None, process.communicate()[0]
    started = pytest_itself.children(recursive=True)
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    assert not [one for one in started if one.is_running()]
    assert not list(project.glob("ended/launches/*/*/scratch"))
    assert (project / "ended" / "run.json").exists(), "the run can be resumed"


def ranks(root: psutil.Process) -> list[psutil.Process]:
    """Return the ranks among the descendants of ``root``; a launcher has no rank of its own."""
    found = []
    for one in root.children(recursive=True):
        with suppress(psutil.Error):
            if "zerogate.worker.main" in one.cmdline() and "RANK" in one.environ():
                found.append(one)
    return found
