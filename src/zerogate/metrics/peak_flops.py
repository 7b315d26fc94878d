"""Peak FLOP/s of a card's matrix units, for model FLOPs utilization."""

from __future__ import annotations

PEAKS = {
    # Dense, with fp32 accumulation, of the fastest form (SXM) unless the name says another. From
    # NVIDIA's data sheets of V100, T4, A10, A30, A100, L4, L40S, H100, H200 and B200: half of the
    # number where a sheet gives it with sparsity.
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "A10G": 70e12,
    "A10": 125e12,
    "A30": 165e12,
    "L40S": 362e12,
    "L4": 121e12,
}
"""FLOP/s in fp16 and bf16, by a part of the card's name; the longest part that matches counts."""

FP16_ONLY = {"V100 PCIE": 112e12, "V100": 125e12, "T4": 65e12}
"""FLOP/s in fp16 of cards without bf16."""


def peak_flops(card: str, precision: str) -> float | None:
    """Return the peak FLOP/s of ``card`` (NVML's or torch's name) in ``precision``.

    None for an unknown card, for a MIG slice, and for precisions other than fp16 and bf16, which do not
    run on these units.
    """
    if precision not in ("fp16", "bf16") or "MIG" in card:  # A slice has a part of the units.
        return None
    known = PEAKS | FP16_ONLY if precision == "fp16" else PEAKS
    words = f" {card.replace('-', ' ')} "
    for name in sorted(known, key=len, reverse=True):
        if f" {name} " in words:
            return known[name]
    return None
