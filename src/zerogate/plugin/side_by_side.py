"""``--jobs``: the searches that a run needs are carried out side by side before its first test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pytest

from zerogate.plugin.stash import OPTIONS, SESSION
from zerogate.protocol.cell import Cell

if TYPE_CHECKING:
    from zerogate.protocol.job import BatchKind


def refuse_jobs(config: pytest.Config, cells: Iterable[Cell]) -> None:
    """Raise UsageError if ``--jobs`` is asked for where nothing can run side by side."""
    if config.stash[OPTIONS].jobs == 1:
        return
    if (tiers := {cell.tier for cell in cells}) and "gpu" not in tiers:
        raise pytest.UsageError(
            "--jobs: the cpu tier's ranks share this machine's cores; timed and counted launches "
            "run alone; leave out --jobs, or use -m gpu"
        )
    if hooks := config.hook.pytest_zerogate_launch.get_hookimpls():
        raise pytest.UsageError(
            f"--jobs: {hooks[0].plugin_name} launches jobs in its own way (pytest_zerogate_launch), "
            "one at a time; leave out --jobs"
        )


def needed_searches(items: Iterable[pytest.Item]) -> dict[Cell, tuple[BatchKind, ...]]:
    """Return the searches on the gpu tier that the fixture ``batch_size`` will ask for, by cell."""
    found: dict[Cell, set[BatchKind]] = {}
    for cell, kind in (pair for item in items for pair in _searches(item)):
        found.setdefault(cell, {"train"}).add(kind)  # The fixture searches for that first.
    return {
        cell: ("train", "eval") if "eval" in kinds else ("train",) for cell, kinds in found.items()
    }


def _searches(item: pytest.Item) -> Iterator[tuple[Cell, BatchKind]]:
    marker, spec = item.get_closest_marker("batch_size"), getattr(item, "callspec", None)
    cell = spec.params.get("cell") if spec else None
    if marker is not None and isinstance(cell, Cell) and cell.tier == "gpu":
        yield cell, marker.args[0]
        if item.get_closest_marker("compared_with"):
            yield cell.reference, marker.args[0]


def search_beforehand(session: pytest.Session) -> None:
    """Carry out the searches side by side if ``--jobs`` asks for it.

    Ends the run if a process cannot be ended: it would stay on a device beside all that follows.
    """
    config = session.config
    if SESSION not in config.stash or config.stash[OPTIONS].jobs == 1 or session.testsfailed:
        return
    from zerogate.launch.errors import LauncherFailedError
    from zerogate.session.side_by_side import search_side_by_side

    if searches := needed_searches(session.items):
        try:
            search_side_by_side(config.stash[SESSION], searches)
        except OSError as error:  # The first launch reports what is wrong with the disk.
            config.stash[SESSION].setup.tell(f"--jobs: {error}; searches run one by one")
        except LauncherFailedError as error:
            pytest.exit(f"--jobs: {error.summary}", returncode=pytest.ExitCode.TESTS_FAILED)
    else:
        config.stash[SESSION].setup.tell(
            '--jobs: no batch size is searched in this run; -m "gpu and batch_size" does'
        )
