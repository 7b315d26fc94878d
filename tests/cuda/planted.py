"""What a rank does first when ``test_planted`` asks for it."""

from __future__ import annotations


def hold_256_mib() -> None:
    """On the rank's device, until it ends: kept by a module that stays, as this file's does not."""
    import os

    import torch

    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    block = torch.zeros(256 * 2**20, dtype=torch.uint8, device="cuda")
    torch.cuda.held_by_zerogate = block  # type: ignore[attr-defined]
