"""Padded tensors from token ids, and repetition of samples to a tier's number."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from typing import TypeVar

import torch

Item = TypeVar("Item")


def padded(rows: Sequence[Sequence[int]], fill: int, length: int | None = None) -> torch.Tensor:
    """Return ids as an int64 tensor (rows, ``length`` or the longest row), filled on the right."""
    width = max(map(len, rows)) if length is None else length
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])


def mask(rows: Sequence[Sequence[int]], length: int | None = None) -> torch.Tensor:
    """Return the attention mask of ``padded(rows, …, length)``: 1 for ids, 0 for padding."""
    return padded([[1] * len(row) for row in rows], 0, length)


def repeated(samples: Sequence[Item], count: int) -> list[Item]:
    """Repeat the samples to ``count`` in all: a long epoch from a short generated corpus."""
    return list(islice(cycle(samples), count))
