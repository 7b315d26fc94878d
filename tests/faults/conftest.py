"""The suite itself, run over a project in which every fault is a strategy of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import planting  # noqa: F401 (its faults register)
from tests.faults.fault import FAULTS, SEPARATOR, Fault
from tests.faults.page import page

ROOT = Path(__file__).parents[2]
INI = """
[pytest]
testpaths = tests/regression
addopts = --strict-markers
zerogate_deadline_seconds = 150
"""
WITHOUT_A_CLOCK = "not test_time and not test_speedup"


class Results:
    """What the suite found in each cell that a fault was planted in."""

    def __init__(self, faults: Iterable[Fault], folder: Path) -> None:
        self._verdicts: dict[str, list[dict[str, Any]]] = {}
        self._failures: dict[str, dict[str, Any]] = {}
        for workload in {fault.workload for fault in faults}:
            self._run(folder / workload, workload, [f for f in faults if f.workload == workload])

    def verdicts(self, strategy: str, fault: Fault) -> list[dict[str, Any]]:
        return self._verdicts.get(f"{strategy}{SEPARATOR}{fault.name}", [])

    def regressed(self, strategy: str, fault: Fault) -> dict[str, dict[str, Any]]:
        """Verdicts by metric."""
        found = self.verdicts(strategy, fault)
        return {one["metric"]: one for one in found if one["status"] == "regressed"}

    def failure(self, strategy: str, fault: Fault) -> dict[str, Any]:
        """Why the cell was not measured; empty where it was."""
        return self._failures.get(f"{strategy}{SEPARATOR}{fault.name}", {})

    def _run(self, root: Path, workload: str, faults: list[Fault]) -> None:
        strategies = _lay_out(root, workload, faults)
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


def _lay_out(root: Path, workload: str, faults: list[Fault]) -> list[str]:
    """A project whose strategies have faults in them, held to the baselines of those without; the
    strategies' names.
    """
    for name in ("configs", "tests/regression", "tests/faults"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests" / "__init__.py", root / "tests")
    (root / "workloads").symlink_to(ROOT / "workloads")
    (root / "pytest.ini").write_text(INI)
    path = Path("baselines", "cpu-gloo", f"{workload}.json")
    baselines = json.loads((ROOT / path).read_text())
    names = []
    for fault in faults:
        for strategy in fault.on + fault.spares:
            name = f"{strategy}{SEPARATOR}{fault.name}"
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
    """Of the faults that were asked for, all in one run per workload; of all of them, the table too."""
    specs = (getattr(item, "callspec", None) for item in request.session.items)
    params = [spec.params for spec in specs if spec is not None]
    asked = {one["fault"].name for one in params if isinstance(one.get("fault"), Fault)}
    faults = [fault for fault in FAULTS.values() if fault.name in asked]
    found = Results(faults, tmp_path_factory.mktemp("faults"))
    yield found
    if len(faults) == len(FAULTS) and not request.session.testsfailed:
        (ROOT / "docs" / "faults.md").write_text(page(faults, found))
