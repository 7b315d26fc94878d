"""The default launcher on one machine: ranks forked from a server that has imported the stack."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from zerogate.config.text import last_lines
from zerogate.launch import process_tree
from zerogate.launch.errors import CannotForkError, LauncherFailedError, ended_how
from zerogate.launch.launcher import PEERS_GRACE_SECONDS, LaunchResult, free_port
from zerogate.launch.stacks import where_ranks_stand
from zerogate.launch.watchdog import Watchdog
from zerogate.protocol.job import Job
from zerogate.protocol.prctl import adopt_orphans

START_SECONDS = 180.0


class ForkserverLauncher:
    """A launcher that keeps a fork server alive until another environment is needed."""

    name = "forkserver"

    def __init__(self, log_folder: Path) -> None:
        self._log_folder = log_folder
        self._server: _Server | None = None

    def launch(
        self, job: Job, folder: Path, environment: dict[str, str], watchdog: Watchdog
    ) -> LaunchResult:
        adopt_orphans()
        before = process_tree.children()
        if self._server is None or not self._server.fits(environment):
            self.close()
            self._server = _Server(environment, self._log_folder / "forkserver.log")
        try:
            return self._server.run(job, folder, watchdog)
        except BaseException:
            # After an interrupt or an error, close the server: it ends its ranks too.
            self.close()
            # Processes that ranks started become ours if the server ended first.
            while left := process_tree.children() - before:
                process_tree.end(left)
            raise

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


class _Server:
    """The controller's end of one fork server. Raises CannotForkError if it cannot start."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment = environment
        self._log = log
        self._unread = b""
        self._messages: list[dict[str, Any]] = []
        self._channel, theirs = socket.socketpair()
        with theirs, log.open("a") as output:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "zerogate.worker.forkserver"),
                    *(str(theirs.fileno()), str(os.getpid())),
                ],
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._expect("ready")
        except CannotForkError:
            self.close()
            raise
        except LauncherFailedError as error:
            self.close()
            raise CannotForkError(error.summary, detail=error.detail, log=error.log) from None
        except BaseException:
            self.close()
            raise

    def fits(self, environment: dict[str, str]) -> bool:
        return self._process.poll() is None and environment == self._environment

    def run(self, job: Job, folder: Path, watchdog: Watchdog) -> LaunchResult:
        """Fork the job's ranks and wait until they end.

        Raises LauncherFailedError, and CannotForkError if the server refuses to fork.
        """
        world_size = job.cell.world_size
        request = {
            "folder": str(folder),
            "cwd": job.root_folder,
            "world_size": world_size,
            "ops": list(job.ops),
            "environment": {
                "WORLD_SIZE": str(world_size),
                "LOCAL_WORLD_SIZE": str(world_size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(free_port()),
            },
        }
        try:
            self._channel.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            raise self._gone("it has ended") from None
        pids: list[int] = self._expect("pids")
        exit_codes, overdue = self._wait(world_size, watchdog)
        stacks = ""
        if left := world_size - len(exit_codes):
            processes = process_tree.descendants(self._living(pids))
            if overdue:
                stacks = where_ranks_stand(watchdog, {process.pid for process in processes})
            process_tree.end(processes)
            for _ in range(left):
                self._expect("rank")
        # The server has adopted the processes that ranks left behind.
        if strays := process_tree.descendants([self._process.pid])[1:]:
            process_tree.end(strays)
            self._channel.sendall(json.dumps({"bury": True}).encode() + b"\n")
            self._expect("buried")
        return LaunchResult(
            exit_codes=exit_codes,
            seconds=watchdog.seconds,
            log=folder,
            overdue=overdue,
            stacks=stacks,
        )

    def _wait(self, world_size: int, watchdog: Watchdog) -> tuple[dict[str, int], str]:
        """Return exit codes of ranks that ended by themselves, and what is past its deadline."""
        exit_codes: dict[str, int] = {}
        grace_ends = float("inf")
        while len(exit_codes) < world_size and time.monotonic() < grace_ends:
            message = self._next(min(time.monotonic() + watchdog.next_look, grace_ends))
            if message is not None:
                exit_codes[f"rank {message['rank']}"] = message["exit_code"]
                if message["exit_code"] != 0:
                    # Its peers wait for it in a collective; let them notice, and end by themselves.
                    grace_ends = min(grace_ends, time.monotonic() + PEERS_GRACE_SECONDS)
            elif not any(exit_codes.values()) and (overdue := watchdog.overdue()):
                return exit_codes, overdue
        return exit_codes, ""

    def _living(self, pids: list[int]) -> list[int]:
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    def _expect(self, key: str) -> Any:
        message = self._next(time.monotonic() + START_SECONDS)
        if message is not None and "refused" in message:
            error = CannotForkError(f"fork server: {message['refused']}")
            error.refused = True
            raise error
        if message is None or key not in message:
            raise self._gone("no answer")
        return message[key]

    def _next(self, until: float) -> dict[str, Any] | None:
        """Return the next message; None if none comes before ``until``, a ``time.monotonic``.

        Raises LauncherFailedError if the server has ended.
        """
        while not self._messages:
            self._channel.settimeout(max(0.001, until - time.monotonic()))
            try:
                data = self._channel.recv(65536)
            except TimeoutError:
                return None
            except OSError:
                data = b""
            if not data:
                raise self._gone("it has ended")
            *lines, self._unread = (self._unread + data).split(b"\n")
            self._messages += [json.loads(line) for line in lines]
        return self._messages.pop(0)

    def _gone(self, what: str) -> LauncherFailedError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        code = self._process.returncode
        how = "still running" if code is None else ended_how(code)
        return LauncherFailedError(
            f"fork server: {what} ({how}); expected it to import the training stack and fork "
            "ranks; see its log",
            detail=last_lines(self._log, 20),
            log=str(self._log),
        )

    def close(self) -> None:
        started = process_tree.descendants([self._process.pid])
        self._channel.close()
        process_tree.end(started)
        self._process.wait()
