"""Strategy files: what they ask of the engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from records import a_cell
from strategy_files import NAMES_A_FILE, Write

from zerogate.config.strategy import read_strategy, strategy_names
from zerogate.protocol.cell import TIERS

CONFIGS = Path(__file__).parents[2] / "configs"

ADAMW, CPU_ADAM = "AdamW", "DeepSpeedCPUAdam"
GLOO = "deepspeed_shm_comm"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a file of configs/ asks for: on both tiers, then on the CPU and the GPU tier."""

    engine: str = "DeepSpeedEngine"
    distributed_type: tuple[str, str] = ("DEEPSPEED", "DEEPSPEED")
    stage: int = 0
    offload: tuple[str, str] = ("none", "none")  # optimizer, parameters
    optimizer: str = ADAMW
    dtype: tuple[str, str] = ("float32", "float16")
    ops: tuple[tuple[str, ...], tuple[str, ...]] = ((GLOO,), ())
    autocast: str = ""  # Where the engine's dtype does not say it: the file's.


BF16 = ("float32", "bfloat16")
EXPECTED = {
    "ddp": Asked(
        engine="DistributedDataParallel",
        distributed_type=("MULTI_CPU", "MULTI_GPU"),
        dtype=("float32", "float32"),
        ops=((), ()),
        autocast="fp16",
    ),
    "fsdp2": Asked(
        engine="FSDPModule",
        distributed_type=("FSDP", "FSDP"),
        dtype=("float32", "float32"),
        ops=((), ()),
        autocast="bf16",
    ),
    "zero1": Asked(stage=1, dtype=BF16),
    "zero2": Asked(stage=2),
    "zero2_config_file": Asked(stage=2),
    "zero2_offload": Asked(
        stage=2,
        dtype=BF16,
        offload=("cpu", "none"),
        optimizer=CPU_ADAM,
        ops=((GLOO, "cpu_adam"), ("cpu_adam",)),
    ),
    "zero3": Asked(stage=3, dtype=BF16),
    "zero3_offload": Asked(
        stage=3,
        offload=("cpu", "cpu"),
        optimizer=CPU_ADAM,
        ops=((GLOO, "cpu_adam"), ("cpu_adam",)),
    ),
    "zero3_nvme": Asked(
        stage=3,
        offload=("nvme", "nvme"),
        optimizer=CPU_ADAM,
        ops=((GLOO, "cpu_adam", "async_io"), ("cpu_adam", "async_io")),
    ),
}


def test_every_file_is_expected_here() -> None:
    assert strategy_names(CONFIGS) == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("tier", TIERS)
def test_what_a_strategy_asks_of_the_engine(name: str, tier: Any) -> None:
    expected, column = EXPECTED[name], TIERS.index(tier)
    found = read_strategy(CONFIGS / f"{name}.yaml")
    assert found.name == name
    assert found.ops(tier) == expected.ops[column]
    assert found.uses_disk == ("nvme" in expected.offload)
    autocast = {"mixed_precision": expected.autocast} if expected.autocast else {}
    assert found.requested(a_cell(name, tier=tier, world_size=4)) == autocast | {
        "world_size": 4,
        "num_processes": 4,
        "distributed_type": expected.distributed_type[column],
        "engine": expected.engine,
        "dtype": expected.dtype[column],
        "zero_stage": expected.stage,
        "offload_optimizer": expected.offload[0],
        "offload_param": expected.offload[1],
        "optimizer": expected.optimizer,
    }


@pytest.mark.parametrize(
    ("name", "tier", "world_size", "engine"),
    [
        pytest.param("ddp", "gpu", 1, "none", id="Accelerate leaves the model bare"),
        pytest.param("ddp", "gpu", 2, "DistributedDataParallel", id="two"),
        pytest.param("ddp", "cpu", 1, "DistributedDataParallel", id="on CPU it never does"),
        pytest.param("zero2", "gpu", 1, "DeepSpeedEngine", id="DeepSpeed never does"),
        pytest.param("fsdp2", "gpu", 1, "FSDPModule", id="nor does FSDP2"),
    ],
)
def test_the_engine_of_a_single_rank(name: str, tier: Any, world_size: int, engine: str) -> None:
    found = read_strategy(CONFIGS / f"{name}.yaml")
    cell = a_cell(name, tier=tier, world_size=world_size)
    assert found.requested(cell)["engine"] == engine


def test_a_precision_that_the_machine_forces_is_what_ranks_must_find() -> None:
    ddp, zero2 = (read_strategy(CONFIGS / f"{name}.yaml") for name in ("ddp", "zero2"))
    assert ddp.requested(a_cell("ddp"), "no")["mixed_precision"] == "no"
    assert "mixed_precision" not in zero2.requested(a_cell("zero2"), "no")


# Files that somebody wrote

PLUGIN = """\
distributed_type: DEEPSPEED
mixed_precision: {precision}
deepspeed_config:
  zero_stage: 2
"""


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp16", "float16"), ("bf16", "bfloat16"), ("no", "float32"), ("'no'", "float32")],
)
def test_the_engines_dtype_follows_mixed_precision(
    write: Write, precision: str, dtype: str
) -> None:
    strategy = read_strategy(write(PLUGIN.format(precision=precision)))
    assert strategy.requested(a_cell(tier="gpu"))["dtype"] == dtype
    assert strategy.requested(a_cell(tier="cpu"))["dtype"] == "float32"


@pytest.mark.parametrize(
    ("deepspeed", "dtype", "ops"),
    [
        pytest.param({}, "float32", (), id="neither precision nor optimizer"),
        pytest.param({"bf16": {"enabled": True}}, "bfloat16", (), id="bf16"),
        pytest.param({"fp16": {"enabled": False}}, "float32", (), id="fp16, switched off"),
        pytest.param({"optimizer": {"type": "AdamW"}}, "float32", ("fused_adam",), id="fused Adam"),
        pytest.param(
            {"optimizer": {"type": "AdamW", "params": {"torch_adam": True}}},
            "float32",
            (),
            id="torch's Adam",
        ),
    ],
)
def test_a_deepspeed_file_has_its_say(
    write: Write, deepspeed: dict[str, Any], dtype: str, ops: tuple[str, ...]
) -> None:
    file = {"zero_optimization": {"stage": 1}} | deepspeed
    strategy = read_strategy(write(NAMES_A_FILE, file))
    assert strategy.zero_stage == 1
    assert strategy.requested(a_cell(tier="gpu"))["dtype"] == dtype
    assert strategy.ops("gpu") == ops


@pytest.mark.parametrize(
    ("precision", "tier", "has_bf16", "forced", "dtype"),
    [
        pytest.param("bf16", "gpu", True, None, "bfloat16", id="bf16 where there is some"),
        pytest.param("bf16", "gpu", False, "fp16", "float16", id="fp16 on an older card"),
        pytest.param("fp16", "gpu", True, None, "float16", id="fp16 where the file has it"),
        pytest.param("no", "gpu", False, None, "float32", id="none"),
        pytest.param("bf16", "cpu", True, "no", "float32", id="fp32 on a CPU"),
    ],
)
def test_what_the_machine_makes_of_a_precision(
    write: Write, precision: str, tier: Any, has_bf16: bool, forced: str | None, dtype: str
) -> None:
    strategy = read_strategy(write(PLUGIN.format(precision=precision)))
    assert strategy.forced_precision(tier, has_bf16=has_bf16) == forced
    assert strategy.requested(a_cell(tier=tier), forced)["dtype"] == dtype


def test_what_a_deepspeed_file_says_stands(write: Write) -> None:
    file = {"zero_optimization": {"stage": 1}, "bf16": {"enabled": True}}
    strategy = read_strategy(write(NAMES_A_FILE, file))
    assert strategy.forced_precision("gpu", has_bf16=False) is None


def test_the_articles_strategies_train_in_fp16_and_the_others_in_bf16() -> None:
    """Not zero3_nvme: its DeepSpeed file could not be changed on a card without bf16."""
    precisions = {
        name: read_strategy(CONFIGS / f"{name}.yaml").mixed_precision for name in EXPECTED
    }
    article = {"ddp", "zero2", "zero2_config_file", "zero3_offload", "zero3_nvme"}
    assert precisions == {name: "fp16" if name in article else "bf16" for name in EXPECTED}
