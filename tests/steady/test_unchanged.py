"""No false alarms: an unchanged stack, measured over and over, is green each time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.steady.page import Results, page

ROOT = Path(__file__).parents[2]
RUNS = 10


@pytest.fixture(scope="module")
def done(request: pytest.FixtureRequest) -> Iterator[list[tuple[Results, float]]]:
    """What each run found, and its seconds; of all of them, the page."""
    runs: list[tuple[Results, float]] = []
    yield runs
    if len(runs) == RUNS and not request.session.testsfailed:
        (ROOT / "docs" / "steady.md").write_text(page(runs))


@pytest.mark.parametrize("run", range(RUNS))
def test_unchanged_cpu_matrix_has_no_regression(
    run: int, done: list[tuple[Results, float]], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "pytest", "-m", "cpu", "-q", "-p", "no:cacheprovider"]
    started = time.monotonic()
    result = subprocess.run(
        [*command, f"--report-dir={tmp_path}"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    seconds = time.monotonic() - started
    (tmp_path / "output.txt").write_text(result.stdout + result.stderr)
    found = json.loads((tmp_path / "results.json").read_text())
    statuses = Counter(verdict["status"] for verdict in found["verdicts"])
    last = result.stdout.splitlines()[-1]
    print(f"\nrun {run + 1} of {RUNS}: {last}\n  {dict(statuses)}, {found['failures']}", flush=True)
    assert result.returncode == 0
    assert statuses["regressed"] == 0
    assert not found["failures"]
    done.append((found, seconds))
