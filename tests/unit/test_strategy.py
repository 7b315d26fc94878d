"""Strategy files: what they ask for, and what is said of one that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from records import a_cell

from zerogate.cell import TIERS
from zerogate.config_file import ACCELERATE_KEYS, ConfigError
from zerogate.strategy import read_strategy, strategy_names

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


EXPECTED = {
    "ddp": Asked(
        engine="DistributedDataParallel",
        distributed_type=("MULTI_CPU", "MULTI_GPU"),
        dtype=("float32", "float32"),
        ops=((), ()),
    ),
    "fsdp2": Asked(
        engine="FSDPModule",
        distributed_type=("FSDP", "FSDP"),
        dtype=("float32", "float32"),
        ops=((), ()),
    ),
    "zero1": Asked(stage=1),
    "zero2": Asked(stage=2),
    "zero2_config_file": Asked(stage=2),
    "zero2_offload": Asked(
        stage=2,
        offload=("cpu", "none"),
        optimizer=CPU_ADAM,
        ops=((GLOO, "cpu_adam"), ("cpu_adam",)),
    ),
    "zero3": Asked(stage=3),
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
    assert found.requested(a_cell(name, tier=tier, world_size=4)) == {
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


def test_the_known_keys_are_accelerates() -> None:
    from accelerate.commands.config.config_args import ClusterConfig

    assert set(ClusterConfig.__dataclass_fields__) <= ACCELERATE_KEYS


# Files that somebody wrote

PLUGIN = """\
distributed_type: DEEPSPEED
mixed_precision: {precision}
deepspeed_config:
  zero_stage: 2
"""

NAMES_A_FILE = """\
distributed_type: DEEPSPEED
deepspeed_config:
  deepspeed_config_file: configs/deepspeed/own.json
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a strategy file, and the DeepSpeed file beside it when given (text or JSON-able)."""

    def write(strategy: str, deepspeed: Any = None) -> Path:
        path = tmp_path / "configs" / "own.yaml"
        (path.parent / "deepspeed").mkdir(parents=True)
        path.write_text(strategy)
        if deepspeed is not None:
            text = deepspeed if isinstance(deepspeed, str) else json.dumps(deepspeed)
            (path.parent / "deepspeed" / "own.json").write_text(text)
        return path

    return write


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


def refusal(path: Path) -> str:
    """What is said of a strategy file that cannot be used; one line."""
    with pytest.raises(ConfigError) as caught:
        read_strategy(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        pytest.param("a: [1\nb: 2\n", ["line 2", "expected an Accelerate config"], id="no YAML"),
        pytest.param("a: 1\n\tb: 2\n", ["line 2"], id="a tab"),
        pytest.param("- DEEPSPEED\n", ["not a mapping"], id="a list"),
        pytest.param("", ["not a mapping"], id="empty"),
        pytest.param(
            "mixed_precison: fp16\n",
            ["mixed_precison: ", "did you mean 'mixed_precision'?"],
            id="a typo",
        ),
        pytest.param("zzzz: 1\n", ["zzzz: ", "remove it"], id="like no key"),
        pytest.param("1: 2\n", ["1: ", "remove it"], id="a number for a key"),
        pytest.param("debug: true\n", ["distributed_type: None", "DEEPSPEED"], id="no type"),
        pytest.param(
            "distributed_type: MEGATRON_LM\n", ["distributed_type: 'MEGATRON_LM'"], id="other type"
        ),
        pytest.param(
            "distributed_type: MULTI_GPU\nnum_processes: 4\n",
            ["num_processes: ", "--world-size"],
            id="number of processes",
        ),
        pytest.param(
            "distributed_type: DEEPSPEED\n"
            "deepspeed_config: {zero_stage: 2, gradient_accumulation_steps: 4}\n",
            ["gradient_accumulation_steps: ", "recipe"],
            id="accumulation",
        ),
        pytest.param(
            "distributed_type: DEEPSPEED\ndeepspeed_config: zero2.json\n",
            ["deepspeed_config: 'zero2.json'", "mapping"],
            id="a text for a section",
        ),
        pytest.param(
            "distributed_type: DEEPSPEED\n",
            ["deepspeed_config.zero_stage: None", "1, 2 or 3"],
            id="no stage",
        ),
        *(
            pytest.param(
                f"distributed_type: DEEPSPEED\ndeepspeed_config: {{zero_stage: {stage}}}\n",
                ["deepspeed_config.zero_stage: ", "1, 2 or 3"],
                id=f"stage {stage}",
            )
            for stage in ("0", "4", "two", "true", "[2]")
        ),
        pytest.param(
            "distributed_type: DEEPSPEED\n"
            "deepspeed_config: {zero_stage: 2, offload_optimizer_device: disk}\n",
            ["offload_optimizer_device: 'disk'", "none, cpu, nvme"],
            id="offload device of the optimizer",
        ),
        pytest.param(
            "distributed_type: DEEPSPEED\n"
            "deepspeed_config: {zero_stage: 3, offload_param_device: gpu}\n",
            ["offload_param_device: 'gpu'", "none, cpu, nvme"],
            id="offload device of the parameters",
        ),
        pytest.param(
            "distributed_type: FSDP\nfsdp_config: {fsdp_version: 1}\n",
            ["fsdp_config.fsdp_version: 1", "expected 2"],
            id="FSDP 1",
        ),
        pytest.param(
            "distributed_type: FSDP\n", ["fsdp_config.fsdp_version: None"], id="FSDP of no version"
        ),
        pytest.param(
            NAMES_A_FILE,
            ["deepspeed_config.deepspeed_config_file: cannot read", "No such file"],
            id="no DeepSpeed file",
        ),
    ],
)
def test_a_strategy_file_that_cannot_be_used(write: Write, strategy: str, words: list[str]) -> None:
    path = write(strategy)
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("deepspeed", "words"),
    [
        pytest.param('{\n"zero_optimization":\n', ["line 3", "expected JSON"], id="cut off"),
        pytest.param("", ["line 1", "expected JSON"], id="empty"),
        pytest.param([1], ["file: not an object"], id="a list"),
        pytest.param({"fp16": {}}, ["zero_optimization.stage"], id="no ZeRO"),
        pytest.param({"zero_optimization": 2}, ["expected a mapping"], id="a number for ZeRO"),
        pytest.param(
            {"zero_optimization": {"stage": 0}}, ["zero_optimization.stage"], id="stage 0"
        ),
        pytest.param(
            {"zero_optimization": {"stage": "auto"}}, ["zero_optimization.stage"], id="stage auto"
        ),
    ],
)
def test_a_deepspeed_file_that_cannot_be_used(
    write: Write, deepspeed: Any, words: list[str]
) -> None:
    path = write(NAMES_A_FILE, deepspeed)
    message = refusal(path)
    assert message.startswith(f"{path.parent / 'deepspeed' / 'own.json'}: ")
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("deepspeed", "words"),
    [
        pytest.param({"fp16": True}, ["fp16"], id="a truth value for fp16"),
        pytest.param({"optimizer": "AdamW"}, ["optimizer"], id="a text for the optimizer"),
        pytest.param(
            {"zero_optimization": {"stage": 3, "offload_param": "cpu"}},
            ["offload_param"],
            id="a text for offload",
        ),
        pytest.param(
            {"zero_optimization": {"stage": True}}, ["zero_optimization.stage"], id="stage true"
        ),
        pytest.param(
            {"zero_optimization": {"stage": 3, "offload_param": {"device": "disk"}}},
            ["own.json: zero_optimization.offload_param.device: 'disk'"],
            id="offload device, named where it stands",
        ),
    ],
)
def test_a_deepspeed_file_of_the_wrong_types(
    write: Write, deepspeed: dict[str, Any], words: list[str]
) -> None:
    message = refusal(write(NAMES_A_FILE, {"zero_optimization": {"stage": 2}} | deepspeed))
    assert all(word in message for word in words), message


def test_a_typo_within_a_section_is_found(write: Write) -> None:
    message = refusal(
        write(
            "distributed_type: DEEPSPEED\n"
            "deepspeed_config: {zero_stage: 2, offload_optimzer_device: cpu}\n"
        )
    )
    assert "did you mean 'offload_optimizer_device'?" in message
