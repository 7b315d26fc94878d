"""Strategy files: what they ask of the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from records import a_cell
from strategy_files import NAMES_A_FILE, Write

from zerogate.config.strategy import read_strategy
from zerogate.protocol.cell import TIERS

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(CONFIGS.glob("*.yaml"))

DDP = "distributed_type: MULTI_GPU\nmixed_precision: fp16\n"
FSDP2 = "distributed_type: FSDP\nmixed_precision: bf16\nfsdp_config:\n  fsdp_version: 2\n"


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_strategy_is_complete_on_both_tiers(path: Path, tier: Any) -> None:
    found = read_strategy(path)
    requested = found.requested(a_cell(path.stem, tier=tier, world_size=4))
    assert (requested["world_size"], requested["num_processes"]) == (4, 4)
    assert requested["zero_stage"] == found.zero_stage
    assert found.name == path.stem
    assert found.uses_disk == ("async_io" in found.ops)


@pytest.mark.parametrize(
    ("text", "engine", "distributed_type", "precision"),
    [
        pytest.param(DDP, "DistributedDataParallel", "MULTI_GPU", "fp16", id="ddp"),
        pytest.param(FSDP2, "FSDPModule", "FSDP", "bf16", id="fsdp2"),
    ],
)
def test_strategy_without_deepspeed_keeps_fp32_parameters(
    write: Write, text: str, engine: str, distributed_type: str, precision: str
) -> None:
    found = read_strategy(write(text))
    assert found.ops == ()
    for tier in TIERS:
        requested = found.requested(a_cell(tier=tier))
        assert requested["engine"] == engine
        assert requested["distributed_type"] == distributed_type
        assert requested["dtype"] == "float32"
        assert requested["mixed_precision"] == precision
        assert requested["optimizer"] == "AdamW"


@pytest.mark.parametrize(
    ("stage", "offload", "optimizer", "ops"),
    [
        pytest.param(1, ("none", "none"), "AdamW", (), id="zero1"),
        pytest.param(2, ("cpu", "none"), "DeepSpeedCPUAdam", ("cpu_adam",), id="zero2 offload"),
        pytest.param(3, ("cpu", "cpu"), "DeepSpeedCPUAdam", ("cpu_adam",), id="zero3 offload"),
        pytest.param(
            3, ("nvme", "nvme"), "DeepSpeedCPUAdam", ("cpu_adam", "async_io"), id="zero3 to disk"
        ),
    ],
)
def test_deepspeed_strategy_requests_stage_offload_and_optimizer(
    write: Write, stage: int, offload: tuple[str, str], optimizer: str, ops: tuple[str, ...]
) -> None:
    lines = ["distributed_type: DEEPSPEED", "deepspeed_config:", f"  zero_stage: {stage}"]
    lines += [f"  offload_optimizer_device: {offload[0]}", f"  offload_param_device: {offload[1]}"]
    found = read_strategy(write("\n".join(lines) + "\n"))
    requested = found.requested(a_cell())
    assert requested["engine"] == "DeepSpeedEngine"
    assert requested["zero_stage"] == stage
    assert (requested["offload_optimizer"], requested["offload_param"]) == offload
    assert requested["optimizer"] == optimizer
    assert found.ops == ops


@pytest.mark.parametrize(
    ("name", "shards", "offloads"),
    [
        pytest.param("ddp", False, False, id="ddp"),
        pytest.param("zero1", True, False, id="zero1"),
        pytest.param("fsdp2", True, False, id="fsdp2"),
        pytest.param("zero3_nvme", True, True, id="to disk"),
        pytest.param("fsdp2_offload", True, True, id="fsdp2 to host"),
    ],
)
def test_strategy_knows_whether_it_shards_and_offloads(
    name: str, shards: bool, offloads: bool
) -> None:
    found = read_strategy(CONFIGS / f"{name}.yaml")
    assert (found.shards, found.offloads) == (shards, offloads)


@pytest.mark.parametrize(
    ("own", "other", "more"),
    [
        ("zero2_offload", "zero2", True),
        ("zero3_nvme", "zero3_offload", True),
        ("zero2", "zero2_offload", False),
        ("zero3", "zero2", False),
        ("zero3_offload", "zero3_offload", False),
        ("fsdp2_offload", "fsdp2", True),
        ("fsdp2", "fsdp2_offload", False),
    ],
)
def test_offloads_more_than_compares_places_of_offload(own: str, other: str, more: bool) -> None:
    ours, theirs = (read_strategy(CONFIGS / f"{name}.yaml") for name in (own, other))
    assert ours.offloads_more_than(theirs) == more


@pytest.mark.parametrize(
    ("name", "tier", "world_size", "engine"),
    [
        pytest.param("ddp", "gpu", 1, "none", id="Accelerate leaves the model bare"),
        pytest.param("ddp", "gpu", 2, "DistributedDataParallel", id="two"),
        pytest.param("ddp", "cpu", 1, "none", id="as on the emulated device"),
        pytest.param("zero2", "gpu", 1, "DeepSpeedEngine", id="DeepSpeed never does"),
        pytest.param("fsdp2", "gpu", 1, "FSDPModule", id="nor does FSDP2"),
    ],
)
def test_engine_depends_on_strategy_tier_and_world_size(
    name: str, tier: Any, world_size: int, engine: str
) -> None:
    found = read_strategy(CONFIGS / f"{name}.yaml")
    cell = a_cell(name, tier=tier, world_size=world_size)
    assert found.requested(cell)["engine"] == engine


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("true", "cpu"),
        ('"true"', "cpu"),
        ("yes", "cpu"),
        ('"yes"', "cpu"),
        ("1", "cpu"),
        ("false", "none"),
        ('"no"', "none"),
        ("0", "none"),
    ],
)
def test_fsdp_offload_is_read_as_accelerate_reads_it(write: Write, value: str, place: str) -> None:
    found = read_strategy(write(f"{FSDP2}  fsdp_offload_params: {value}\n"))
    assert (found.offload_optimizer, found.offload_param) == (place, place)
    requested = found.requested(a_cell())
    assert (requested["offload_optimizer"], requested["offload_param"]) == (place, place)
    assert requested["engine"] == "FSDPModule"
    assert found.ops == ()


def test_forced_precision_is_requested_of_ddp_but_not_zero2() -> None:
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
def test_engine_dtype_follows_mixed_precision(write: Write, precision: str, dtype: str) -> None:
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
def test_deepspeed_file_determines_stage_dtype_and_ops(
    write: Write, deepspeed: dict[str, Any], dtype: str, ops: tuple[str, ...]
) -> None:
    file = {"zero_optimization": {"stage": 1}} | deepspeed
    strategy = read_strategy(write(NAMES_A_FILE, file))
    assert strategy.zero_stage == 1
    assert strategy.requested(a_cell(tier="gpu"))["dtype"] == dtype
    assert strategy.ops == ops


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
def test_forced_precision_depends_on_tier_and_bf16_support(
    write: Write, precision: str, tier: Any, has_bf16: bool, forced: str | None, dtype: str
) -> None:
    strategy = read_strategy(write(PLUGIN.format(precision=precision)))
    assert strategy.forced_precision(tier, has_bf16=has_bf16) == forced
    assert strategy.requested(a_cell(tier=tier), forced)["dtype"] == dtype


def test_precision_in_deepspeed_file_is_not_forced(write: Write) -> None:
    file = {"zero_optimization": {"stage": 1}, "bf16": {"enabled": True}}
    strategy = read_strategy(write(NAMES_A_FILE, file))
    assert strategy.forced_precision("gpu", has_bf16=False) is None


ARTICLE = ("ddp", "zero2", "zero2_config_file", "zero3_offload")


@pytest.mark.parametrize("name", ARTICLE)
def test_article_strategy_uses_fp16(name: str) -> None:
    assert read_strategy(CONFIGS / f"{name}.yaml").mixed_precision == "fp16"
