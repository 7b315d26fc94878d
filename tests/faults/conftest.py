"""The suite itself, run over a project in which every fault is a strategy of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.faults import planting  # noqa: F401 (its faults register)
from tests.faults.fault import (
    ALL_SPARED,
    FAULTS,
    SEPARATOR,
    Fault,
    Spared,
    spared_strategies,
)
from tests.faults.page import page

ROOT = Path(__file__).parents[2]
INI = """
[pytest]
testpaths = claims
addopts = --strict-markers
zerogate_deadline_seconds = 150
"""
WITHOUT_A_CLOCK = "not test_time and not test_speedup"


class Results:
    """What the suite found in each cell that something was planted in.

    ``planted``: by workload, strategies and what is planted under each: a fault's name, or ALL_SPARED.
    """

    def __init__(self, planted: Mapping[str, Sequence[tuple[str, str]]], folder: Path) -> None:
        self._verdicts: dict[str, list[dict[str, Any]]] = {}
        self._failures: dict[str, dict[str, Any]] = {}
        for workload, pairs in planted.items():
            self._run(folder / workload, workload, pairs)

    def verdicts(self, strategy: str, planted: str) -> list[dict[str, Any]]:
        return self._verdicts.get(f"{strategy}{SEPARATOR}{planted}", [])

    def regressed(self, strategy: str, planted: str) -> dict[str, dict[str, Any]]:
        """Verdicts by metric."""
        found = self.verdicts(strategy, planted)
        return {one["metric"]: one for one in found if one["status"] == "regressed"}

    def failure(self, strategy: str, planted: str) -> dict[str, Any]:
        """Why the cell was not measured; empty where it was."""
        return self._failures.get(f"{strategy}{SEPARATOR}{planted}", {})

    def _run(self, root: Path, workload: str, planted: Sequence[tuple[str, str]]) -> None:
        strategies = _lay_out(root, workload, planted)
        command = [
            sys.executable, "-m", "pytest", "-p", "tests.faults.planting", "-p", "no:cacheprovider",
            "-m", "cpu", "-k", WITHOUT_A_CLOCK, "-q", "--tb=no", "-rN",
            "--workload", workload, "--strategy", ",".join(strategies),
        ]  # fmt: skip
        # Shown as it goes: this takes minutes.
        subprocess.run(command, cwd=root, check=False)
        found = json.loads((root / "zerogate-report" / "results.json").read_text())
        for verdict in found["verdicts"]:
            self._verdicts.setdefault(verdict["strategy"], []).append(verdict)
        for failure in found["failures"]:
            strategy = failure["cell"].removeprefix(f"{workload}-").partition("-w")[0]
            self._failures[strategy] = failure


def _lay_out(root: Path, workload: str, planted: Sequence[tuple[str, str]]) -> list[str]:
    """A project whose strategies have faults in them, held to the baselines of those without; the
    strategies' names.
    """
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("configs", "tests/faults"):
        shutil.copytree(ROOT / name, root / name, ignore=ignore)
    shutil.copytree(ROOT / "src" / "zerogate" / "suite", root / "claims", ignore=ignore)
    shutil.copy(ROOT / "tests" / "__init__.py", root / "tests")
    (root / "workloads").symlink_to(ROOT / "workloads")
    (root / "pytest.ini").write_text(INI)
    path = Path("baselines", "cpu-gloo", f"{workload}.json")
    baselines = json.loads((ROOT / path).read_text())
    names = []
    for strategy, what in planted:
        name = f"{strategy}{SEPARATOR}{what}"
        shutil.copy(root / "configs" / f"{strategy}.yaml", root / "configs" / f"{name}.yaml")
        baselines["cells"][f"{name}-w2"] = baselines["cells"][f"{strategy}-w2"]
        names.append(name)
    (root / path).parent.mkdir(parents=True)
    (root / path).write_text(json.dumps(baselines))
    return names


@pytest.fixture(scope="session")
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Results]:
    """Of what was asked for, all in one run per workload; of all there is, the page too."""
    specs = (getattr(item, "callspec", None) for item in request.session.items)
    values = [value for spec in specs if spec is not None for value in spec.params.values()]
    faults = [value for value in values if isinstance(value, Fault)]
    spared = [value for value in values if isinstance(value, Spared)]
    planted: dict[str, list[tuple[str, str]]] = {}
    for fault in faults:
        pairs = [(strategy, fault.name) for strategy in fault.on]
        planted.setdefault(fault.workload, []).extend(pairs)
    for one in spared:
        planted.setdefault(one.workload, []).append((one.strategy, ALL_SPARED))
    found = Results(planted, tmp_path_factory.mktemp("faults"))
    yield found
    everything = (len(faults), len(spared)) == (len(FAULTS), len(spared_strategies()))
    if everything and not request.session.testsfailed:
        (ROOT / "docs" / "faults.md").write_text(page(faults, spared, found))
