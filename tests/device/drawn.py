"""Tensors as hypothesis draws them: small, of every layout that training meets."""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st

FLOATS = (torch.float32, torch.bfloat16)
INTEGERS = (torch.int64,)
BOOLS = (torch.bool,)
NUMBERS = FLOATS + INTEGERS
ALL = NUMBERS + BOOLS
LAYOUTS = ("contiguous", "transposed", "sliced", "stepped", "expanded")


def filled(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Return numbers between -3 and 3, none of them 0 so that nothing divides by it."""
    generator = torch.Generator().manual_seed(seed)
    if dtype.is_floating_point:
        drawn = torch.rand(shape, generator=generator) * 2.5 + 0.5
        return (drawn * (torch.randint(0, 2, shape, generator=generator) * 2 - 1)).to(dtype)
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    return torch.randint(1, 4, shape, generator=generator).to(dtype)


def laid_out(kind: str, shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Return a tensor of the shape whose strides and offset are of the kind; 0-dim ones have none."""
    if not shape or kind == "contiguous":
        return filled(shape, dtype, seed)
    *before, last = shape
    if kind == "transposed":
        return filled(tuple(reversed(shape)), dtype, seed).permute(*reversed(range(len(shape))))
    if kind == "sliced":
        return filled((*before, last + 3), dtype, seed)[..., 2 : 2 + last]
    if kind == "stepped":
        return filled((*before, last * 2 + 1), dtype, seed)[..., 1::2]
    return filled((*before, 1), dtype, seed).expand(shape)


@st.composite
def tensors(
    draw: st.DrawFn,
    dtypes: tuple[torch.dtype, ...] = FLOATS,
    shape: tuple[int, ...] | None = None,
    least: int = 0,
    layouts: tuple[str, ...] = LAYOUTS,
) -> torch.Tensor:
    """Draw a tensor; floating ones may require gradients."""
    if shape is None:
        shape = tuple(draw(st.lists(st.integers(1, 4), min_size=least, max_size=4)))
    kind = draw(st.sampled_from(layouts))
    made = laid_out(kind, shape, draw(st.sampled_from(dtypes)), draw(st.integers(0, 50)))
    return made.requires_grad_(made.is_floating_point() and draw(st.booleans()))


def positions(shape: tuple[int, ...], below: int, kind: str = "contiguous") -> torch.Tensor:
    """Return indices below a bound."""
    count = math.prod(shape)
    return (laid_out(kind, shape, torch.int64) + torch.arange(count).view(shape)) % below
