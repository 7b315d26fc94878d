"""No false alarms: an environment compared with itself has no difference, each time."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNS = 10
STRATEGIES = ("ddp", "zero2", "zero3")


@pytest.mark.parametrize("run", range(RUNS))
def test_environment_against_itself_has_no_difference(run: int, tmp_path: Path) -> None:
    """The other one is the same DeepSpeed, laid over: everything is as it is, but where it lies."""
    release = importlib.metadata.version("deepspeed")
    same = f"deepspeed=={release}"
    command = [sys.executable, "-m", "pytest", "-m", "cpu", "-q", "-p", "no:cacheprovider"]
    command += ["--workload", "gpt2xl_wikitext2", "--against", same]
    command += [f"--report-dir={tmp_path}"]
    for strategy in STRATEGIES:
        command += ["--strategy", strategy]
    result = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    (tmp_path / "output.txt").write_text(result.stdout + result.stderr)
    found = json.loads((tmp_path / "results.json").read_text())
    # Invariants are of this environment alone.
    held = [
        verdict for verdict in found["verdicts"] if verdict["against"] == f"deepspeed {release}"
    ]
    statuses = Counter(verdict["status"] for verdict in held)
    print(f"\nrun {run + 1} of {RUNS}: {dict(statuses)}", flush=True)
    assert result.returncode == 0, result.stdout[-3000:]
    assert statuses["ok"] > 0
    # Seconds of a pair of launches cannot be told apart: that is INVALID.
    unlike = [one["metric"] for one in held if one["status"] not in ("ok", "invalid")]
    assert not unlike, unlike
    assert not found["failures"]
