"""Model states by the formulas of the ZeRO and ZeRO-Offload papers, and their figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from zerogate.config.strategy import read_strategy
from zerogate.metrics.model_states import StateBytes, paper_bytes_per_parameter

CONFIGS = Path(__file__).parents[2] / "configs"


def of(strategy: str, world_size: int, parameter_bytes: int) -> StateBytes:
    path = CONFIGS / f"{strategy}.yaml"
    return paper_bytes_per_parameter(read_strategy(path), world_size, parameter_bytes)


@pytest.mark.parametrize(
    ("strategy", "gigabytes"), [("ddp", 120), ("zero1", 31.4), ("zero2", 16.6), ("zero3", 1.9)]
)
def test_bytes_per_parameter_match_paper_example(strategy: str, gigabytes: float) -> None:
    """7.5 billion parameters, mixed precision, 64 ranks: figure 1."""
    found = of(strategy, 64, 2)
    assert 7.5 * found.device == pytest.approx(gigabytes, abs=0.05)
    assert found.host == 0


@pytest.mark.parametrize("ranks", [1, 4, 64])
def test_offloaded_states_match_table_of_zero_offload(ranks: int) -> None:
    """Mixed precision, table 1: 2 of 16 bytes stay on the device; ranks share the rest (4.2)."""
    assert of("zero2_offload", ranks, 2) == StateBytes(device=2, host=14 / ranks)


@pytest.mark.parametrize(
    ("strategy", "device", "host"),
    [
        ("ddp", 16, 0),
        ("zero1", 12, 0),
        ("zero2", 10, 0),
        ("zero2_config_file", 10, 0),
        ("zero2_offload", 4, 6),
        ("zero3", 8, 0),
        ("zero3_offload", 0, 8),
        ("zero3_nvme", 0, 0),
        ("fsdp2", 8, 0),
        ("fsdp2_offload", 0, 8),
    ],
)
def test_bytes_per_parameter_in_fp32_on_two_ranks_match_formulas(
    strategy: str, device: float, host: float
) -> None:
    assert of(strategy, 2, 4) == StateBytes(device, host)


@pytest.mark.parametrize("strategy", ["zero2_offload", "zero3_offload", "fsdp2_offload"])
def test_offload_to_host_keeps_sum_of_states(strategy: str) -> None:
    """What leaves the device is on the host: nothing is lost on the way."""
    assert sum(of(strategy, 2, 4)) == sum(of(strategy.removesuffix("_offload"), 2, 4))
