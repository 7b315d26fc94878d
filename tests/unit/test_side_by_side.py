"""Controllers side by side: what they are given, and that nothing of them is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from records import a_cell

from zerogate.config.options import Options
from zerogate.config.validation import from_json, to_json
from zerogate.devices import assignment, cards
from zerogate.devices.cards import Card
from zerogate.launch import process_tree
from zerogate.plugin.side_by_side import needed_searches
from zerogate.protocol.cell import Cell
from zerogate.session import side_by_side
from zerogate.session.progress import ProgressUpdate
from zerogate.session.rank_setup import RankSetup
from zerogate.session.search_cell import INTERRUPTED, SearchRequest, request_path
from zerogate.session.session import Session
from zerogate.session.side_by_side import search_side_by_side

ROOT = Path(__file__).parents[2]
CELLS = [replace(a_cell(name), tier="gpu", world_size=1) for name in ("ddp", "zero1", "zero2")]
SEARCHES = dict.fromkeys(CELLS, ("train",))

CONTROLLER = """
import os, signal, subprocess, sys

rank = [sys.executable, "-c", "import signal; signal.pause()"]
child = subprocess.Popen(rank, start_new_session=True, stdout=subprocess.DEVNULL)
print(os.getpid(), child.pid, os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
signal.pause()
"""
"""A controller in the middle of a launch: it has told its pid, its rank's and its devices."""

Sessions = Callable[..., Session]


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sessions:
    """A session on a machine with so many cards; ``watch`` gets its progress."""
    (tmp_path / "controller.py").write_text(CONTROLLER)
    monkeypatch.setattr(side_by_side, "CONTROLLER", (str(tmp_path / "controller.py"),))
    monkeypatch.setattr(RankSetup, "unavailable", lambda setup, cell: "")

    def session(number: int, watch: Callable[[ProgressUpdate], None], jobs: int = 2) -> Session:
        found = tuple(Card("NVIDIA H200", f"GPU-{index}", 141 * 2**30) for index in range(number))
        for module in (assignment, cards, side_by_side):
            monkeypatch.setattr(module, "cuda_devices", lambda: found)
        asked = Options(root=ROOT, report_folder=tmp_path, cache_folder=tmp_path, jobs=jobs)
        return Session(asked, launchers={}, progress=watch)

    return session


class Watch:
    """The controllers that told of themselves, by cell. From ``number`` on, ``act`` is called."""

    def __init__(self, number: int, act: Callable[[Watch], None]) -> None:
        self.pids: dict[Cell, tuple[int, int]] = {}
        self.devices: dict[Cell, str] = {}
        self.lines: list[str] = []
        self._number = number
        self._act = act

    def __call__(self, update: ProgressUpdate) -> None:
        self.lines.append(update.text)
        words = update.text.split()
        if update.cell is not None and len(words) == 3 and words[0].isdecimal():
            self.pids[update.cell] = (int(words[0]), int(words[1]))
            self.devices[update.cell] = words[2]
            if len(self.pids) >= self._number:
                self._act(self)


def interrupt(watch: Watch) -> None:
    raise KeyboardInterrupt


def kill_all(watch: Watch) -> None:
    for controller, _ in watch.pids.values():
        if psutil.pid_exists(controller):
            os.kill(controller, signal.SIGKILL)


def test_interrupt_ends_controllers_and_ranks(session: Sessions) -> None:
    watch = Watch(2, interrupt)
    with pytest.raises(KeyboardInterrupt):
        search_side_by_side(session(2, watch), SEARCHES)
    assert len(watch.pids) == 2, "the third waits for a device"
    assert set(watch.devices.values()) == {"GPU-0", "GPU-1"}
    assert not process_tree.children()
    assert not any(psutil.pid_exists(pid) for pair in watch.pids.values() for pid in pair)


def test_killed_controller_leaves_no_rank_and_its_device_is_used_again(session: Sessions) -> None:
    def kill_last(watch: Watch) -> None:
        if len(watch.pids) == 3:
            assert psutil.pid_exists(first[0][0]), "its neighbour is left in peace"
            assert not psutil.pid_exists(first[1][1]), "its rank would still be on the device"
            raise KeyboardInterrupt
        first.extend(watch.pids.values())
        os.kill(first[1][0], signal.SIGKILL)

    first: list[tuple[int, int]] = []
    watch = Watch(2, kill_last)
    with pytest.raises(KeyboardInterrupt):
        search_side_by_side(session(2, watch), SEARCHES)
    assert "the search ended (killed by SIGKILL); searched alone later" in watch.lines
    _, killed, third = watch.devices
    assert watch.devices[third] == watch.devices[killed]


def test_killed_controllers_end_the_searches(session: Sessions) -> None:
    watch = Watch(1, kill_all)
    search_side_by_side(session(3, watch, jobs=3), SEARCHES)
    assert sum("searched alone later" in line for line in watch.lines) == 3
    assert not process_tree.children()


def test_one_device_starts_no_controller(session: Sessions) -> None:
    watch = Watch(1, interrupt)
    search_side_by_side(session(1, watch), SEARCHES)
    assert watch.lines == ["no two searches fit on this machine at once; they run one by one"]


def test_controller_is_given_cell_options_and_run(session: Sessions, tmp_path: Path) -> None:
    asked = session(2, Watch(1, kill_all))
    search_side_by_side(asked, SEARCHES)
    folder = tmp_path / "side-by-side" / CELLS[1].id
    request = from_json(SearchRequest, request_path(folder).read_bytes())
    assert (request.cell, request.kinds) == (CELLS[1], ("train",))
    assert request.options == asked.options
    assert request.parent_pid == os.getpid()
    assert (tmp_path / "run.json").exists()


def test_controller_whose_session_is_gone_launches_nothing(tmp_path: Path) -> None:
    options = Options(root=ROOT, report_folder=tmp_path / "nowhere")
    gone = SearchRequest(options=options, cell=CELLS[0], kinds=("train",), parent_pid=1)
    request_path(tmp_path).write_bytes(to_json(gone))
    command = [sys.executable, "-m", "zerogate.session.search_cell", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (INTERRUPTED, "", "")


def test_controller_tells_in_one_line_why_it_cannot_search(tmp_path: Path) -> None:
    options = Options(root=ROOT, report_folder=tmp_path / "nowhere")
    asked = SearchRequest(options=options, cell=CELLS[0], kinds=("train",), parent_pid=os.getpid())
    request_path(tmp_path).write_bytes(to_json(asked))
    command = [sys.executable, "-m", "zerogate.session.search_cell", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert re.fullmatch(r".*No such file or directory.*run\.json.*\n", done.stdout)


def an_item(cell: Cell, **markers: str) -> Any:
    """A test of ``cell`` whose markers have one argument each."""
    found = {name: SimpleNamespace(args=(value,)) for name, value in markers.items()}
    return SimpleNamespace(
        get_closest_marker=found.get, callspec=SimpleNamespace(params={"cell": cell})
    )


def test_needed_searches_are_those_of_marked_tests_and_their_references() -> None:
    ddp, zero1, zero2 = CELLS
    items = [
        an_item(zero2, batch_size="train"),
        an_item(zero2, compared_with="ddp"),
        an_item(zero1, batch_size="eval"),
        an_item(replace(zero1, tier="cpu"), batch_size="train"),
    ]
    assert needed_searches(items) == {zero2: ("train",), zero1: ("train", "eval")}
    items.append(an_item(zero2, batch_size="train", compared_with="ddp"))
    assert needed_searches(items)[ddp] == ("train",)
