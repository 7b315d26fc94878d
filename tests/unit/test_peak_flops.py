"""What cards can do at most, and how much of it was used."""

from __future__ import annotations

from dataclasses import replace

import pytest
from records import a_cell, a_record, a_trace, measured

from zerogate.metrics.peak_flops import peak_flops
from zerogate.protocol.record import Device


@pytest.mark.parametrize(
    ("card", "precision", "peak"),
    [
        ("NVIDIA H200", "bf16", 989e12),
        ("NVIDIA H100 PCIe", "fp16", 756e12),
        ("NVIDIA H100 80GB HBM3", "fp16", 989e12),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312e12),
        ("NVIDIA H200 NVL", "bf16", 835e12),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16", None),
        ("Tesla V100-PCIE-16GB", "fp16", 112e12),
        ("NVIDIA A10G", "bf16", 70e12),
        ("Tesla V100-SXM2-16GB", "fp16", 125e12),
        ("Tesla V100-SXM2-16GB", "bf16", None),
        ("NVIDIA L40S", "fp16", 362e12),
        ("NVIDIA H200", "no", None),
        ("NVIDIA X9000", "bf16", None),
    ],
)
def test_peak_flops_depend_on_card_and_precision(
    card: str, precision: str, peak: float | None
) -> None:
    assert peak_flops(card, precision) == peak


@pytest.mark.parametrize(
    ("card", "expected"), [("NVIDIA H200", 0.5), ("NVIDIA X9000", None)], ids=str
)
def test_mfu_is_share_of_peak_flops_of_known_card(card: str, expected: float | None) -> None:
    """A median step of 0.1 s, in which a rank did half of what an H200 can do meanwhile."""
    records = [
        a_record(
            rank,
            traced=a_trace(flops=int(989e12 * 0.1 / 2)),
            device=Device(uuid="a", pid=1, peak_reserved_bytes=0, name=card),
            # A DeepSpeed file's; Accelerate's config need not say it.
            applied={"dtype": "bfloat16", "mixed_precision": "bf16"},
        )
        for rank in (0, 1)
    ]
    found = measured(records, cell=replace(a_cell(), tier="gpu")).value("mfu")
    assert found == (expected and pytest.approx(expected))


def test_mfu_without_card_is_absent() -> None:
    assert measured([a_record(0)]).value("mfu") is None
