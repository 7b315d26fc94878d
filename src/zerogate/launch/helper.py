"""A command run beside the launches, and ended with everything it started."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from zerogate.launch import process_tree

LIBC = ctypes.CDLL(None)
"""Loaded here: between fork and exec there is no time for it."""
PR_SET_PDEATHSIG = 1


def run_helper(
    command: Sequence[str],
    environment: Mapping[str, str],
    seconds: float,
    *,
    folder: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` in ``folder``. Late or interrupted, nothing that it started stays; when this
    process is killed, it is told to end.

    Raises subprocess.TimeoutExpired.
    """
    with subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # It takes no lock that another thread could hold.
        preexec_fn=partial(_end_with, os.getpid()),  # noqa: PLW1509
    ) as process:
        try:
            output, messages = process.communicate(timeout=seconds)
        finally:
            process_tree.end(process_tree.descendants([process.pid]))
    return subprocess.CompletedProcess(command, process.returncode, output, messages)


def _end_with(caller: int) -> None:
    """In the child: be told when ``caller`` is gone, or leave at once where it is already."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != caller:
        os._exit(1)
