"""The project: where its strategies, workloads, data and baselines lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Project:
    """The folders of one project, below ``root``."""

    root: Path

    @property
    def strategies(self) -> Path:
        """The folder with one Accelerate config for each strategy."""
        return self.root / "configs"

    @property
    def workloads(self) -> Path:
        """The folder with one Python file for each workload."""
        return self.root / "workloads"

    @property
    def generated_data(self) -> Path:
        """The folder with the generated data sets, each in its own folder."""
        return self.workloads / "data"

    @property
    def baselines(self) -> Path:
        """The folder with one folder of baselines for each kind of machine."""
        return self.root / "baselines"

    @property
    def report(self) -> Path:
        """The folder that results go to unless ``--report-dir`` names another."""
        return self.root / "zerogate-report"

    def strategy_file(self, strategy: str) -> Path:
        """Return the Accelerate config of a strategy."""
        return self.strategies / f"{strategy}.yaml"

    def workload_file(self, workload: str) -> Path:
        """Return the Python file of a workload."""
        return self.workloads / f"{workload}.py"

    def strategy_names(self) -> list[str]:
        """Return the names of all strategies, sorted."""
        return sorted(path.stem for path in self.strategies.glob("*.yaml"))

    def workload_names(self) -> list[str]:
        """Return the names of all workloads, sorted."""
        found = (path.stem for path in self.workloads.glob("*.py"))
        return sorted(name for name in found if name != "__init__")


def is_project(folder: Path) -> bool:
    """Return whether ``folder`` holds strategies and workloads."""
    project = Project(folder)
    return project.strategies.is_dir() and project.workloads.is_dir()


def find_project(here: Path, top: Path) -> Project | None:
    """Return the project in ``top``, or else the nearest at or above ``here`` that lies below ``top``;
    None without any.
    """
    for folder in (top, here, *here.parents):
        if folder.is_relative_to(top) and is_project(folder):
            return Project(folder)
    return None
