"""The fork server: imports the training stack once, then forks ranks from it.

Importing torch, transformers, accelerate and DeepSpeed takes each rank seconds; a fork takes none.
It runs as ``python -m zerogate.worker.forkserver FD CONTROLLER_PID`` and exchanges JSON lines over
that socket:

    in   {"folder": …, "cwd": …, "environment": {…}, "world_size": N}   once per launch
    out  {"ready": true} first; {"pids": […]}, then {"rank": R, "exit_code": C} for every rank
    out  {"refused": WHY} in place of the first two, and the end: ranks would find CUDA unusable
    in   {"bury": true}   after the controller ended processes that a launch left behind
    out  {"buried": true}

When the controller closes its end or dies, the server kills every rank and exits.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from zerogate.protocol.prctl import adopt_orphans, signal_at_parent_death
from zerogate.worker.fork_hazards import close_nvml, fork_hazard, open_nvml
from zerogate.worker.parent_death import exit_with_controller

PRELOAD = (
    "torch.distributed.fsdp",
    "accelerate.commands.launch",
    "accelerate.utils.deepspeed",
    "deepspeed",
    # Imported by every engine; compiles at import, which brings in the whole of inductor.
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "transformers.generation",
    "transformers.models.auto.modeling_auto",
    "datasets",
    "evaluate",
    "pyarrow.parquet",
    "sacrebleu",
    "sklearn.metrics",
    "tokenizers",
    "zerogate.worker.probe_job",
    "zerogate.worker.train_job",
)


class RefusedError(Exception):
    """A fork that is refused, since its ranks would find CUDA unusable."""


def sees_devices() -> bool:
    """Return whether ranks may use CUDA; those of the cpu tier see no device."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def check_forkable() -> None:
    """Raise RefusedError if ranks that may use CUDA cannot be forked from this process."""
    if sees_devices() and (why := fork_hazard()):
        raise RefusedError(why)


def preload() -> None:
    """Import the stack. It must not touch a device, which ``check_forkable`` finds out."""
    for name in PRELOAD:
        try:
            importlib.import_module(name)
        except ImportError:
            # A rank that needs it reports the error in its record; other ranks do not need it.
            continue
    gc.collect()
    gc.freeze()


def load_ops(names: list[str]) -> None:
    """Load compiled DeepSpeed ops here, so that ranks inherit them.

    Loading one that is built makes no CUDA context. DeepSpeed makes one to compile one for CUDA.
    """
    from zerogate.worker import ops

    try:
        ops.load(names, Path(os.environ["ZEROGATE_NATIVE_DIR"]))
    except Exception:
        # The rank that needs the op gets the same error and records it.
        traceback.print_exc()


class Server:
    """The fork server's loop: at most one launch at a time."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._ranks: dict[int, tuple[int, int]] = {}  # pidfd -> (rank, pid)
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ)
        self._unread = b""
        self._has_nvml = False

    def serve(self) -> None:
        """Serve launches until the controller closes its end, or until forking is refused."""
        try:
            check_forkable()
            self._send({"ready": True})
            self._serve()
        except RefusedError as error:
            self._send({"refused": str(error)})

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._channel:
                    if not self._receive():
                        return
                elif isinstance(key.fileobj, int):
                    self._ended(key.fileobj)

    def kill_ranks(self) -> None:
        for _, pid in self._ranks.values():
            os.kill(pid, signal.SIGKILL)

    def _send(self, message: dict[str, Any]) -> None:
        self._channel.sendall(json.dumps(message).encode() + b"\n")

    def _receive(self) -> bool:
        data = self._channel.recv(65536)
        if not data:
            return False
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "bury" in request:
                self._bury()
            else:
                self._launch(request)
        return True

    def _launch(self, request: dict[str, Any]) -> None:
        load_ops(request["ops"])
        check_forkable()
        self._has_nvml = sees_devices() and close_nvml()
        pids = []
        for rank in range(request["world_size"]):
            pid = os.fork()
            if pid == 0:
                self._become_rank(rank, request)
            pidfd = os.pidfd_open(pid)
            self._ranks[pidfd] = (rank, pid)
            self._selector.register(pidfd, selectors.EVENT_READ)
            pids.append(pid)
        self._send({"pids": pids})

    def _bury(self) -> None:
        """Reap, between launches, the processes that were adopted from ranks and have ended."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        self._send({"buried": True})

    def _ended(self, pidfd: int) -> None:
        self._selector.unregister(pidfd)
        rank, pid = self._ranks.pop(pidfd)
        _, status = os.waitpid(pid, 0)
        os.close(pidfd)
        self._send({"rank": rank, "exit_code": os.waitstatus_to_exitcode(status)})

    def _become_rank(self, rank: int, request: dict[str, Any]) -> None:
        """Run the rank in the forked child. Never returns."""
        status = 1
        try:
            self._channel.close()
            signal_at_parent_death(signal.SIGKILL)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            os.setpgid(0, 0)
            folder = Path(request["folder"])
            log = os.open(folder / f"rank{rank}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(request["cwd"])
            os.environ.update(request["environment"])
            os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank)})
            if self._has_nvml:
                open_nvml()
            gc.enable()
            from zerogate.worker.main import run

            status = run(folder)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    # A closed channel alone may be noticed too late, for example while ops are loaded.
    exit_with_controller(int(sys.argv[2]), with_group=True)
    # Adopts the processes that ranks leave behind, so that the controller finds them below this one.
    adopt_orphans()
    # The controller handles an interrupt: it closes the channel.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    preload()
    server = Server(channel)
    try:
        server.serve()
    finally:
        server.kill_ranks()


if __name__ == "__main__":
    main()
