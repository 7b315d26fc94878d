"""Ranks that must not draw weights: a preload."""

from __future__ import annotations

from typing import Any

import torch


def refuse() -> None:
    """Make drawing a tensor an error, unless it has no memory."""
    draw = torch.Tensor.normal_

    def normal_(self: torch.Tensor, *arguments: Any, **settings: Any) -> torch.Tensor:
        if not self.is_meta:
            raise AssertionError(f"a weight was drawn: {tuple(self.shape)}")
        return draw(self, *arguments, **settings)

    torch.Tensor.normal_ = normal_  # type: ignore[method-assign]
