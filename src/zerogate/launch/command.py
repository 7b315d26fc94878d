"""Launchers that are a command: torchrun, and ``accelerate launch`` as a user types it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

from zerogate.launch import process_tree
from zerogate.launch.launcher import LaunchResult
from zerogate.launch.stacks import where_ranks_stand
from zerogate.launch.watchdog import Watchdog
from zerogate.protocol.accelerate_launch import launch_arguments
from zerogate.protocol.job import Job
from zerogate.protocol.prctl import adopt_orphans

WORKER = "zerogate.worker.main"


def torchrun_command(job: Job, folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "torch.distributed.run"),
        "--standalone",
        *("--nproc-per-node", str(job.cell.world_size)),
        *("--module", WORKER, str(folder)),
    ]


def accelerate_command(job: Job, folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *launch_arguments(job.config_file, job.cell.world_size, job.precision),
        *("--module", WORKER, str(folder)),
    ]


COMMANDS = {"torchrun": torchrun_command, "accelerate": accelerate_command}


class CommandLauncher:
    """A launcher that runs one command per launch and ends everything that it started."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._command = COMMANDS[name]

    def launch(
        self, job: Job, folder: Path, environment: dict[str, str], watchdog: Watchdog
    ) -> LaunchResult:
        adopt_orphans()
        before = process_tree.children()
        log = folder / "launch.log"
        exit_codes = {}
        overdue = stacks = ""
        with log.open("w") as output:
            process = subprocess.Popen(
                self._command(job, folder),
                cwd=job.root_folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code, overdue = _wait(process, watchdog)
                if code is not None:
                    exit_codes[self.name] = code
                else:
                    ours = process_tree.children() - before
                    stacks = where_ranks_stand(watchdog, {found.pid for found in ours})
            finally:
                # Ranks are descendants, though torchrun puts each into a session of its own.
                while left := process_tree.children() - before:
                    process_tree.end(left)
                process.wait()
        return LaunchResult(
            exit_codes=exit_codes, seconds=watchdog.seconds, log=log, overdue=overdue, stacks=stacks
        )

    def close(self) -> None:
        """Do nothing: nothing is kept between launches."""


def _wait(process: subprocess.Popen[bytes], watchdog: Watchdog) -> tuple[int | None, str]:
    """Return the exit code of ``process``, or None and what is past its deadline."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(watchdog.next_look), ""
        if overdue := watchdog.overdue():
            return None, overdue
