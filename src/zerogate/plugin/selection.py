"""Which cells a session is about: the workloads, strategies and world sizes that were asked for."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from zerogate.config.strategy import strategy_names
from zerogate.protocol.cell import TIERS, Cell, Tier

MOST_RANKS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The cells asked for, before ``-m`` and ``-k`` have their say."""

    workloads: tuple[str, ...]
    strategies: tuple[str, ...]
    world_sizes: tuple[int, ...]

    def cells(self, tiers: Sequence[Tier] = TIERS) -> list[Cell]:
        return [
            Cell(workload=workload, strategy=strategy, world_size=world_size, tier=tier)
            for tier in tiers
            for workload in self.workloads
            for world_size in self.world_sizes
            for strategy in self.strategies
        ]


def workload_names(root: Path) -> list[str]:
    return sorted(
        path.stem for path in (root / "workloads").glob("*.py") if path.stem != "__init__"
    )


def read_selection(config: pytest.Config) -> Selection:
    """Workloads, strategies and world sizes of this session. Raises UsageError."""
    root = config.rootpath
    strategies = strategy_names(root / "configs")
    return Selection(
        workloads=_chosen(config, "workload", workload_names(root)),
        # The reference first: others are compared with it.
        strategies=tuple(
            sorted(_chosen(config, "strategy", strategies), key=lambda name: (name != "ddp", name))
        ),
        world_sizes=_world_sizes(config.getoption("zerogate_world_size")),
    )


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


def _world_sizes(text: str) -> tuple[int, ...]:
    sizes = []
    for part in text.split(","):
        # isdecimal alone knows other scripts' digits, isdigit superscripts too.
        number = part.strip()
        if not (number.isascii() and number.isdecimal() and 1 <= int(number[:9]) <= MOST_RANKS):
            raise pytest.UsageError(
                f"--world-size: {number[:20]!r} is not a number of ranks; expected whole numbers "
                f"from 1 to {MOST_RANKS}, like 2 or 2,4"
            )
        sizes.append(int(number))
    return tuple(dict.fromkeys(sizes))
