"""No false alarms: an unchanged stack, measured over and over, is green each time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from zerogate.metric import METRICS

ROOT = Path(__file__).parents[2]
RUNS = 10
PORTABLE = {name for name, metric in METRICS.items() if metric.scope == "portable"}


@pytest.fixture(scope="module")
def first() -> dict[str, Any]:
    """What the first run measured that must be the same in the others."""
    return {}


@pytest.mark.parametrize("run", range(RUNS))
def test_the_matrix_is_green(run: int, first: dict[str, Any], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-m", "cpu", "-q", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, f"--report-dir={tmp_path}"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    (tmp_path / "output.txt").write_text(result.stdout + result.stderr)
    found = json.loads((tmp_path / "results.json").read_text())
    statuses = Counter(verdict["status"] for verdict in found["verdicts"])
    last = result.stdout.splitlines()[-1]
    print(f"\nrun {run + 1} of {RUNS}: {last}\n  {dict(statuses)}, {found['failures']}", flush=True)
    assert result.returncode == 0
    assert statuses["regressed"] == 0
    assert not found["failures"]
    measured = {
        one["cell"]: {name: value for name, value in one["values"].items() if name in PORTABLE}
        for one in found["measurements"]
    }
    reference = first.setdefault("values", measured)
    differing = [
        f"{cell} {name}"
        for cell, values in measured.items()
        for name, value in values.items()
        if value != reference[cell][name]
    ]
    assert not differing
