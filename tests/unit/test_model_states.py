"""Model states by the ZeRO paper's formulas: its figure 1 and table 1."""

from __future__ import annotations

from pathlib import Path

import pytest

from zerogate.config.strategy import read_strategy
from zerogate.metrics.model_states import paper_bytes_per_parameter

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("strategy", "gigabytes"), [("ddp", 120), ("zero1", 31.4), ("zero2", 16.6), ("zero3", 1.9)]
)
def test_bytes_per_parameter_match_paper_example(strategy: str, gigabytes: float) -> None:
    """7.5 billion parameters, mixed precision, 64 ranks: figure 1."""
    found = paper_bytes_per_parameter(read_strategy(CONFIGS / f"{strategy}.yaml"), 64, 2, "gpu")
    assert 7.5 * found == pytest.approx(gigabytes, abs=0.05)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("ddp", 16),
        ("zero1", 12),
        ("zero2", 10),
        ("zero3", 8),
        ("fsdp2", 8),
        ("zero2_offload", 10),
        ("zero3_nvme", 2),
    ],
)
def test_bytes_per_parameter_in_fp32_on_two_ranks_match_formulas(
    strategy: str, expected: float
) -> None:
    found = paper_bytes_per_parameter(read_strategy(CONFIGS / f"{strategy}.yaml"), 2, 4, "cpu")
    assert found == expected


def test_bytes_per_parameter_on_gpu_exclude_host_offload() -> None:
    strategy = read_strategy(CONFIGS / "zero2_offload.yaml")
    assert paper_bytes_per_parameter(strategy, 2, 2, "gpu") == 3
