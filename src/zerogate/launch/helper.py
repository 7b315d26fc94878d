"""A command run beside the launches, and ended with everything it started."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from zerogate.launch import process_tree


def run_helper(
    command: Sequence[str],
    environment: Mapping[str, str],
    seconds: float,
    *,
    folder: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` in ``folder``. Late or interrupted, nothing that it started stays.

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
    ) as process:
        try:
            output, messages = process.communicate(timeout=seconds)
        finally:
            process_tree.end(process_tree.descendants([process.pid]))
    return subprocess.CompletedProcess(command, process.returncode, output, messages)
