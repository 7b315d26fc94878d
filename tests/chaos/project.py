"""A project of three toy cells, run by pytest itself in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.launch.conftest import ROOT
from zerogate.launch.watchdog import read_heartbeat
from zerogate.metrics.table import METRICS

STRATEGIES = ("ddp", "fsdp2", "zero2")
"""In the order that they are measured in."""

INI = "[pytest]\ntestpaths = claims\naddopts = --strict-markers -rfEs\n"
COMMAND = (
    *(sys.executable, "-m", "pytest", "-m", "cpu", "-q", "-p", "no:cacheprovider"),
    "--missing-baseline=skip",
)
HARDWARE = tuple(name for name, metric in METRICS.items() if metric.scope == "hardware")
SUITE = ROOT / "src" / "zerogate" / "suite"
LOOK_SECONDS = 0.001
GIVE_UP_SECONDS = 120.0


class Project:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "tests" / "launch" / "project", folder)
        (folder / "configs").mkdir()
        for name in STRATEGIES:
            shutil.copy(ROOT / "configs" / f"{name}.yaml", folder / "configs")
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(SUITE, folder / "claims", ignore=ignore)
        (folder / "pytest.ini").write_text(INI)
        self.report = folder / "zerogate-report"

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        options = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "text": True,
            "preexec_fn": heed_signals,
        } | options
        return subprocess.Popen([*COMMAND, *arguments], cwd=self.folder, **options)

    def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code and output."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def launch_folder(self, strategy: str) -> Path:
        return self.report / "launches" / f"toy_faults-{strategy}-w2-cpu" / "0"

    def wait_until(self, strategy: str, phase: str, process: subprocess.Popen[str]) -> None:
        """Until rank 0 of the cell's launch has got to ``phase``, or is further."""
        phases = ("set-up", "train", "eval", "trace")
        wait_for(
            lambda: (
                (beat := read_heartbeat(self.launch_folder(strategy), 0)) is not None
                and phases.index(beat.phase) >= phases.index(phase)
            ),
            process,
        )

    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.report / "results.json").read_text())
        return found

    def lasting_results(self) -> dict[str, Any]:
        """The results without times and what follows from them."""
        found = self.results()
        for name in ("written", "resumed_launches"):
            del found["environment"][name]
        for measurement in found["measurements"]:
            del measurement["launches"]
            for name in HARDWARE:
                measurement["values"].pop(name, None)
        verdicts = [one for one in found["verdicts"] if not one["metric"].startswith(HARDWARE)]
        return found | {"verdicts": verdicts}


def heed_signals() -> None:
    """In the child: whoever runs these tests in the background ignores SIGINT and SIGHUP."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Look until it holds; fails when ``process`` has ended before, or after a while."""
    give_up = time.monotonic() + GIVE_UP_SECONDS
    while not condition():
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < give_up, "it never came to that"
        time.sleep(LOOK_SECONDS)


def processes_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Everything that it has started, and itself."""
    return [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]


def left_of(processes: list[psutil.Process], within_seconds: float) -> list[psutil.Process]:
    """Those that are still there after so long. Zombies of others are gone."""
    _, alive = psutil.wait_procs(
        [one for one in processes if one.pid != os.getpid()], timeout=within_seconds
    )
    return [one for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
