"""A cell: what is trained, how it is sharded, on how many ranks, at which size.

A cell identifies everything that is measured. Only this module knows how its id is spelled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

Tier = Literal["cpu", "gpu"]
"""``cpu``: gloo, scale models, no downloads. ``gpu``: CUDA, full size."""

TIERS: tuple[Tier, ...] = get_args(Tier)

REFERENCE_STRATEGY = "ddp"
"""The strategy that every other is compared with, for speed and for numbers."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cell:
    """One workload under one strategy on ``world_size`` ranks.

    ``workload`` and ``strategy`` are the stems of files in ``workloads/`` and ``configs/``.
    """

    workload: str
    strategy: str
    world_size: int
    tier: Tier

    @property
    def id(self) -> str:
        """Pytest's parameter id and the name on disk: ``gpt2xl_wikitext2-zero3_offload-w2-cpu``."""
        return f"{self.workload}-{self.key}-{self.tier}"

    @property
    def key(self) -> str:
        """The cell's key in its workload's baseline file: ``zero3_offload-w2``."""
        return f"{self.strategy}-w{self.world_size}"

    @property
    def data_name(self) -> str:
        return data_name(self.workload)

    @property
    def reference(self) -> Cell:
        """The DDP cell that this one is compared with."""
        return Cell(
            workload=self.workload,
            strategy=REFERENCE_STRATEGY,
            world_size=self.world_size,
            tier=self.tier,
        )

    @property
    def is_reference(self) -> bool:
        return self.strategy == REFERENCE_STRATEGY


def parse_cell(text: str) -> Cell:
    """Return the cell with this id; of the cpu tier if the id names none. Raises ValueError."""
    found = re.fullmatch(r"(\w+)-([\w-]+)-w([1-9]\d{0,3})(?:-(cpu|gpu))?", text)
    if found is None:
        raise ValueError(
            f"{text!r} is no cell; expected an id like gpt2xl_wikitext2-zero2-w2; copy it from the "
            "name of a test"
        )
    workload, strategy, world_size, tier = found.groups()
    return Cell(
        workload=workload,
        strategy=strategy,
        world_size=int(world_size),
        tier="gpu" if tier == "gpu" else "cpu",
    )


def data_name(workload: str) -> str:
    """Return the name of the data set's folder: the part after the model in ``<model>_<data>``."""
    return workload.split("_", 1)[-1]
