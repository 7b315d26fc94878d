"""Compiled ops for cards are built beside launches that are not timed; the build waits at a gate."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from records import a_cell, a_record

from zerogate.config.options import Options
from zerogate.devices import assignment, cards
from zerogate.devices.cards import Card
from zerogate.environment.compiled_ops import NativeOps
from zerogate.launch import process_tree
from zerogate.launch.process_tree import Helper
from zerogate.protocol.job import Job, ProbeRequest
from zerogate.protocol.record import Probed, RankRecord
from zerogate.session import rank_setup
from zerogate.session.batch_size import LARGEST
from zerogate.session.progress import ProgressUpdate
from zerogate.session.session import Session

ROOT = Path(__file__).parents[2]
PLAIN = replace(a_cell("ddp"), tier="gpu", world_size=1)
OFFLOAD = replace(PLAIN, strategy="zero2_offload")
PROBE = ProbeRequest(kind="train", sizes=(1,), stop=8)


class Building:
    """A build with a compiler below it, which ends when the gate is opened, and what happened when."""

    def __init__(self, folder: Path) -> None:
        self.gate, self.built, self.pids = (folder / name for name in ("gate", "built", "pids"))
        self.events: list[str] = []
        self.at_waiting: Callable[[], None] = self.open_gate
        os.mkfifo(self.gate)
        self._ready = folder / "ready"
        os.mkfifo(self._ready)

    def helper(self, names: list[str]) -> Helper:
        answer = json.dumps({name: {} for name in names})
        script = (
            f"sleep 1000 & echo $$ $! > {self.pids}; echo > {self._ready}; "
            f"read line < {self.gate}; kill $!; touch {self.built}; echo '{answer}'"
        )
        helper = Helper(["sh", "-c", script], os.environ)
        self._ready.read_text()
        return helper

    def open_gate(self) -> None:
        self.gate.write_text("on\n")

    def progress(self, update: ProgressUpdate) -> None:
        if "compil" in update.text:
            self.events.append(update.text)
        if update.text.startswith("waiting for the compilation"):
            self.at_waiting()

    def launch(self, job: Job, folder: Path) -> tuple[RankRecord, ...]:
        when = "after" if self.built.exists() else "before"
        self.events.append(f"{job.purpose} of {job.cell.strategy} {when} the end of the build")
        asked = job.probe.sizes if job.probe else ()
        sizes = [2**index for index in range(13)] if job.probe and job.probe.stop else asked
        probed = [
            Probed(
                size=size, peak_allocated_bytes=size, forward_bytes=size, step_seconds=(0.1, 0.1)
            )
            for size in sizes
        ]
        return (a_record(probed=tuple(probed)),)

    def is_over(self) -> bool:
        return not any(_lives(int(pid)) for pid in self.pids.read_text().split())


def _lives(pid: int) -> bool:
    """A zombie does not: it may stay if an earlier test let this process adopt orphans."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def building(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Building:
    found = Building(tmp_path)
    monkeypatch.setattr(NativeOps, "_helper", found.helper)
    return found


@pytest.fixture
def session(
    building: Building, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Session]:
    card = (Card("NVIDIA H200", "GPU-a", 141 * 2**30),)
    monkeypatch.setattr(assignment, "cuda_devices", lambda: card)
    monkeypatch.setattr(cards, "cuda_devices", lambda: card)
    monkeypatch.setattr(rank_setup, "missing_capacity", lambda *asked: "")
    monkeypatch.setattr(rank_setup, "cuda_lacks", lambda environment: "")
    (tmp_path / "report").mkdir()
    options = Options(root=ROOT, report_folder=tmp_path / "report", cache_folder=tmp_path)
    found = Session(options, launchers={}, launch_hook=building.launch, progress=building.progress)
    yield found
    found.close()


def test_probe_runs_beside_build_and_training_after_it(
    session: Session, building: Building
) -> None:
    session.start_compiling([PLAIN, OFFLOAD])
    assert not session.runner.probe(PLAIN, PROBE, 0).alone
    assert session.runner.launch(PLAIN, 0, 1).alone
    assert session.runner.launch(OFFLOAD, 0, 1).alone
    assert building.events == [
        "compiling cpu_adam in the background (once for this stack and CPU)",
        "probe of ddp before the end of the build",
        "waiting for the compilation of cpu_adam",
        "training of ddp after the end of the build",
        "training of zero2_offload after the end of the build",
    ]
    assert building.is_over()


def test_probe_that_needs_op_waits_for_build(session: Session, building: Building) -> None:
    session.start_compiling([PLAIN, OFFLOAD])
    assert session.setup.unavailable(PLAIN) == ""
    assert session.runner.probe(OFFLOAD, PROBE, 0).alone
    assert building.events[1:] == [
        "waiting for the compilation of cpu_adam",
        "probe of zero2_offload after the end of the build",
    ]


def test_batch_speed_is_measured_after_build(session: Session, building: Building) -> None:
    session.start_compiling([OFFLOAD])
    found = session.batch_size(PLAIN, "train")
    assert (found.size, found.launches) == (LARGEST, 2), "that the size is certain takes one more"
    assert found.samples_per_second is not None
    assert building.events[1:] == [
        "probe of ddp before the end of the build",
        "waiting for the compilation of cpu_adam",
        "probe of ddp after the end of the build",
    ]


def test_cells_without_ops_or_on_cpu_start_no_build(session: Session, building: Building) -> None:
    session.start_compiling([PLAIN, replace(OFFLOAD, tier="cpu")])
    assert building.events == []


def test_op_of_cell_that_cannot_run_here_is_not_built(
    session: Session, building: Building, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_setup, "missing_capacity", lambda *asked: "needs 2 CUDA devices")
    session.start_compiling([OFFLOAD])
    assert building.events == []


def test_build_is_not_ended_with_processes_of_launch(session: Session, building: Building) -> None:
    before = process_tree.children()
    session.start_compiling([OFFLOAD])
    assert process_tree.children() - before == set()


def test_closed_session_leaves_no_build_and_no_lock(session: Session, building: Building) -> None:
    session.start_compiling([OFFLOAD])
    session.close()
    assert building.is_over()
    assert not building.built.exists()
    session.start_compiling([OFFLOAD])
    assert len(building.events) == 2, "the cache is not locked, and the op counts as unbuilt"


def test_interrupt_while_waiting_for_build_ends_it(session: Session, building: Building) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    building.at_waiting = interrupt
    session.start_compiling([OFFLOAD])
    with pytest.raises(KeyboardInterrupt):
        session.runner.launch(PLAIN, 0, 1)
    session.close()
    assert building.is_over()
    assert building.events[-1] == "waiting for the compilation of cpu_adam"
