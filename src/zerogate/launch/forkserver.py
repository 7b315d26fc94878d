"""The default launcher on one machine: ranks forked from a server that has imported the stack."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from zerogate.launch import process_tree
from zerogate.launch.errors import RankCrashedError
from zerogate.launch.launcher import PEERS_GRACE_SECONDS, Ended, free_port
from zerogate.record import Job

START_SECONDS = 180.0


class ForkserverLauncher:
    """Keeps one fork server per environment alive for the session."""

    name = "forkserver"

    def __init__(self, log_folder: Path) -> None:
        self._log_folder = log_folder
        self._server: _Server | None = None

    def launch(
        self, job: Job, folder: Path, environment: dict[str, str], deadline_seconds: float
    ) -> Ended:
        started = time.monotonic()
        if self._server is None or not self._server.fits(environment):
            self.close()
            self._server = _Server(environment, self._log_folder / "forkserver.log")
        try:
            exit_codes, in_time = self._server.run(
                job, folder, deadline=time.monotonic() + deadline_seconds
            )
        except BaseException:
            # Interrupted or broken: the server takes its ranks with it.
            self.close()
            raise
        return Ended(
            exit_codes=exit_codes,
            deadline_passed=not in_time,
            seconds=time.monotonic() - started,
            log=folder,
        )

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


class _Server:
    """The controller's end of one fork server."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment = environment
        self._log = log
        self._unread = b""
        self._messages: list[dict[str, Any]] = []
        self._channel, theirs = socket.socketpair()
        with theirs, log.open("a") as output:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "zerogate.rank.forkserver"),
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
            self._expect("ready", deadline=time.monotonic() + START_SECONDS)
        except BaseException:
            self.close()
            raise

    def fits(self, environment: dict[str, str]) -> bool:
        return self._process.poll() is None and environment == self._environment

    def run(self, job: Job, folder: Path, *, deadline: float) -> tuple[dict[str, int], bool]:
        """Exit codes of the ranks that ended by themselves, and whether it was in time."""
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
        self._channel.sendall(json.dumps(request).encode() + b"\n")
        pids: list[int] = self._expect("pids", deadline=deadline)
        exit_codes: dict[str, int] = {}
        in_time = True
        while len(exit_codes) < world_size:
            message = self._next(deadline)
            if message is None:
                # After a failure the deadline was the peers' grace, not the launch's.
                in_time = any(exit_codes.values())
                break
            exit_codes[f"rank {message['rank']}"] = message["exit_code"]
            if message["exit_code"] != 0:
                # Its peers wait for it in a collective; they get a moment to notice themselves.
                deadline = min(deadline, time.monotonic() + PEERS_GRACE_SECONDS)
        left = world_size - len(exit_codes)
        if left:
            process_tree.end(process_tree.descendants(self._living(pids)))
            for _ in range(left):
                self._expect("rank", deadline=time.monotonic() + START_SECONDS)
        # What a rank started and left behind: the server has adopted it.
        if strays := process_tree.descendants([self._process.pid])[1:]:
            process_tree.end(strays)
            self._channel.sendall(json.dumps({"bury": True}).encode() + b"\n")
            self._expect("buried", deadline=time.monotonic() + START_SECONDS)
        return exit_codes, in_time

    def _living(self, pids: list[int]) -> list[int]:
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    def _expect(self, key: str, *, deadline: float) -> Any:
        message = self._next(deadline)
        if message is None or key not in message:
            raise RankCrashedError(
                f"fork server: no answer (exit code {self._process.poll()}); "
                "it was expected to import the training stack and fork ranks; see its log",
                detail=_tail(self._log),
                log=str(self._log),
            )
        return message[key]

    def _next(self, deadline: float) -> dict[str, Any] | None:
        """The next message, or None at the deadline or when the server has ended."""
        while not self._messages:
            self._channel.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self._channel.recv(65536)
            except TimeoutError:
                return None
            if not data:
                return None
            *lines, self._unread = (self._unread + data).split(b"\n")
            self._messages += [json.loads(line) for line in lines]
        return self._messages.pop(0)

    def close(self) -> None:
        self._channel.close()
        process_tree.end(process_tree.descendants([self._process.pid]))
        self._process.wait()


def _tail(log: Path, lines: int = 20) -> str:
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
