"""What a card's matrix units can do at most, for model FLOPs utilization."""

from __future__ import annotations

PEAKS = {
    # Dense, with fp32 accumulation, of the form with most (SXM) unless named; half of what
    # NVIDIA's data sheets give with sparsity:
    # V100, T4, A10, A30, A100, L4, L40S, H100, H200, B200.
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
"""FLOP/s in fp16 and bf16, by what the card's name contains; longer names first."""

FP16_ONLY = {"V100 PCIE": 112e12, "V100": 125e12, "T4": 65e12}


def peak_flops(card: str, precision: str) -> float | None:
    """FLOP/s of ``card`` (NVML's or torch's name) in ``precision``; None for what is not known, or
    where it is not the matrix units that are asked.
    """
    if precision not in ("fp16", "bf16") or "MIG" in card:  # A slice has part of the units.
        return None
    known = PEAKS | FP16_ONLY if precision == "fp16" else PEAKS
    words = f" {card.replace('-', ' ')} "
    for name in sorted(known, key=len, reverse=True):
        if f" {name} " in words:
            return known[name]
    return None
