"""What a planted fault is: a patch of the stack inside the ranks, and what must see it.

A fault is a function that a rank runs before it builds anything. It changes DeepSpeed, Accelerate,
torch or transformers, never the suite, in the way of a bug that people have met.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Family = Literal["memory", "speed", "wrong numbers", "configuration", "offload"]

SEPARATOR = "__"
"""Between a strategy and the fault that is planted under it, in the name of a strategy file."""

ALL_SPARED = "all_that_spare_it"
"""Planted under a strategy: at once, all faults that must leave it as it was."""

WRONG_CONFIGURATION = "wrong configuration"
"""What a fault is caught by that ranks refuse to train with: an ERROR, not a regression."""

MIXED_DEVICES = "Expected all tensors to be on the same device"
"""What a fault is caught by that ranks crash of, as on a card: an ERROR that says so."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """``bug`` is the one it mimics; ``on`` the strategies it must be seen under, each by ``caught_by``;
    ``spares`` those that it is planted under too and that stay as they were.
    """

    name: str
    family: Family
    bug: str
    what: str
    file: str
    caught_by: str
    on: tuple[str, ...]
    spares: tuple[str, ...]
    workload: str

    @property
    def preload(self) -> str:
        """What a rank runs: the function, in its file."""
        return f"{self.file}::{self.name}"


FAULTS: dict[str, Fault] = {}


@dataclass(frozen=True)
class Spared:
    """A strategy, and the faults that it must not notice."""

    workload: str
    strategy: str
    faults: tuple[Fault, ...]


def spared_strategies() -> list[Spared]:
    """Every strategy that a registered fault spares. One launch carries all of its faults: together
    they must change nothing either, and launches are what this suite's minutes are made of.
    """
    found: dict[tuple[str, str], list[Fault]] = {}
    for one in FAULTS.values():
        for strategy in one.spares:
            found.setdefault((one.workload, strategy), []).append(one)
    return [Spared(*cell, tuple(faults)) for cell, faults in sorted(found.items())]


def planted_under(workload: str, strategy: str, name: str) -> tuple[str, ...]:
    """What ranks of a cell run first whose strategy's name ends in ``name``."""
    if name != ALL_SPARED:
        return (FAULTS[name].preload,)
    (spared,) = (
        one for one in spared_strategies() if (one.workload, one.strategy) == (workload, strategy)
    )
    return tuple(fault.preload for fault in spared.faults)


def fault(
    bug: str,
    *,
    family: Family,
    caught_by: str,
    on: str,
    spares: str = "",
    workload: str = "gpt2xl_wikitext2",
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register the decorated function; its docstring says what goes wrong."""

    def register(plant: Callable[[], None]) -> Callable[[], None]:
        FAULTS[plant.__name__] = Fault(
            name=plant.__name__,
            family=family,
            bug=bug,
            what=" ".join((plant.__doc__ or "").split()),
            file=plant.__code__.co_filename,
            caught_by=caught_by,
            on=tuple(on.split()),
            spares=tuple(spares.split()),
            workload=workload,
        )
        return plant

    return register


def around(owner: Any, name: str, patch: Callable[..., Any]) -> None:
    """Replace ``owner.name``: ``patch`` gets the original and then its arguments."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def patched(*arguments: Any, **options: Any) -> Any:
        return patch(original, *arguments, **options)

    setattr(owner, name, patched)
