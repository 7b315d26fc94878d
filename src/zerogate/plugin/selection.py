"""Cells of a session: the workloads, strategies and world sizes that its options name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import pytest

from zerogate.config.options import Options
from zerogate.config.project import Project
from zerogate.protocol.cell import REFERENCE_STRATEGY, TIERS, Cell, Tier

MOST_RANKS = 1024


def selected_cells(options: Options, tiers: Sequence[Tier] = TIERS) -> list[Cell]:
    """Return the cells that the options span, before ``-m`` and ``-k`` select among them."""
    return [
        Cell(workload=workload, strategy=strategy, world_size=world_size, tier=tier)
        for tier in tiers
        for workload in options.workloads
        for world_size in options.world_sizes
        for strategy in options.strategies
    ]


def read_workloads(config: pytest.Config, project: Project) -> tuple[str, ...]:
    """Return the workloads that ``--workload`` names, or else all of the project. Raises UsageError."""
    return _chosen(config, "workload", project.workload_names())


def read_strategies(config: pytest.Config, project: Project) -> tuple[str, ...]:
    """Return the strategies that ``--strategy`` names, or else all, with the reference first.

    Raises UsageError.
    """
    chosen = _chosen(config, "strategy", project.strategy_names())
    return tuple(sorted(chosen, key=lambda name: (name != REFERENCE_STRATEGY, name)))


def read_world_sizes(config: pytest.Config) -> tuple[int, ...]:
    """Return the numbers of ranks that ``--world-size`` names. Raises UsageError."""
    text: str = config.getoption("zerogate_world_size")
    sizes = []
    for part in text.split(","):
        # isdecimal alone accepts digits of other scripts, and isdigit superscripts too.
        number = part.strip()
        if not (number.isascii() and number.isdecimal() and 1 <= int(number[:9]) <= MOST_RANKS):
            raise pytest.UsageError(
                f"--world-size: {number[:20]!r} is not a number of ranks; expected whole numbers "
                f"from 1 to {MOST_RANKS}, like 2 or 2,4"
            )
        sizes.append(int(number))
    return tuple(dict.fromkeys(sizes))


def _chosen(config: pytest.Config, kind: str, existing: list[str]) -> tuple[str, ...]:
    given: list[str] | None = config.getoption(f"zerogate_{kind}")
    if not given:
        return tuple(existing)
    names = [name.strip() for text in given for name in text.split(",") if name.strip()]
    if not names:
        raise pytest.UsageError(f"--{kind}: no name given; choose from {', '.join(existing)}")
    for name in names:
        if name not in existing:
            close = difflib.get_close_matches(name, existing, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise pytest.UsageError(
                f"--{kind}: unknown {kind} {name!r}; choose from {', '.join(existing)}{hint}"
            )
    return tuple(dict.fromkeys(names))
