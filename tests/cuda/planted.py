"""What a rank does first when ``test_planted`` asks for it."""

from __future__ import annotations

HELD: list[object] = []


def hold_256_mib() -> None:
    """On the rank's device, until it ends."""
    import os

    import torch

    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    HELD.append(torch.zeros(256 * 2**20, dtype=torch.uint8, device="cuda"))
