"""What a planted fault is: a patch of the stack inside the ranks, and what must see it.

A fault is a function that a rank runs before it builds anything. It changes DeepSpeed, Accelerate,
torch or transformers, never the suite, in the way of a bug that people have met.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Family = Literal["memory", "speed", "wrong numbers", "configuration"]

SEPARATOR = "__"
"""Between a strategy and the fault that is planted under it, in the name of a strategy file."""

WRONG_CONFIGURATION = "wrong configuration"
"""What a fault is caught by that ranks refuse to train with: an ERROR, not a regression."""


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
