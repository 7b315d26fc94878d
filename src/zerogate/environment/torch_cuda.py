"""The CUDA devices of this machine as torch sees them. The controller never imports torch, so a
separate process does; that takes seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from zerogate.launch.process_tree import run_helper

ANSWER_SECONDS = 120.0
INSTALL = "install the build for this driver: https://pytorch.org/get-started"
QUESTION = """
import json, torch
nccl = list(torch.cuda.nccl.version()) if torch.version.cuda else []
print(json.dumps([torch.version.cuda or "", torch.cuda.is_available(), nccl]))
"""


@dataclass(frozen=True, slots=True)
class TorchCuda:
    """The CUDA that torch was built for ("" for none), and why ranks cannot use it ("" if they
    can). ``nccl`` is the version of torch's NCCL.
    """

    built_for: str
    lacks: str
    nccl: tuple[int, ...]


def ask_torch(environment: Mapping[str, str] | None = None) -> str:
    """Return what the torch of ``environment`` prints about itself; "" if it is too slow."""
    command = [sys.executable, "-c", QUESTION]
    try:
        return run_helper(command, environment or os.environ, ANSWER_SECONDS).stdout
    except subprocess.TimeoutExpired:
        return ""


def parse_answer(answer: str) -> TorchCuda | None:
    """Return the answer of ``ask_torch``, parsed; None if torch cannot be imported."""
    try:  # The last line: whatever else was imported may have printed.
        built_for, available, nccl = json.loads(answer.strip().rpartition("\n")[2])
    except (ValueError, TypeError):
        return None
    lacks = ""
    if not built_for:
        lacks = "torch is built without CUDA"
    elif not available:
        lacks = f"torch (CUDA {built_for}) sees no device"
    return TorchCuda(built_for, lacks, tuple(nccl))


def cuda_lacks(environment: Mapping[str, str]) -> str:
    """Return why ranks in ``environment`` cannot use a card, with the remedy; empty if they can."""
    found = parse_answer(ask_torch(environment))
    if found is None:
        return ""  # The launch will report what is wrong with torch.
    return f"{found.lacks}; {INSTALL}" if found.lacks else ""
