"""What is said of a strategy file that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from strategy_files import NAMES_A_FILE, Write

from zerogate.config.strategy import read_strategy
from zerogate.config.strategy_file import ConfigError


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
            ["deepspeed_config.gradient_accumulation_steps: ", "recipe"],
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
            for stage in ("0", "4", "two", "true", "2.0", "[2]")
        ),
        pytest.param(
            "distributed_type: DEEPSPEED\n"
            "deepspeed_config: {zero_stage: 2, offload_optimizer_device: disk}\n",
            ["offload_optimizer_device: 'disk'", "none, cpu or nvme"],
            id="offload device of the optimizer",
        ),
        pytest.param(
            "distributed_type: DEEPSPEED\n"
            "deepspeed_config: {zero_stage: 3, offload_param_device: gpu}\n",
            ["offload_param_device: 'gpu'", "none, cpu or nvme"],
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
        *(
            pytest.param(
                f"distributed_type: MULTI_GPU\n{asked}\n",
                [asked.split(":")[0], "remove it"],
                id=asked,
            )
            for asked in ("parallelism_config: {tp_size: 2}", "fp8_config: {backend: TE}")
        ),
        *(
            pytest.param(f"distributed_type: MULTI_GPU\n{text}\n", words, id=text[:40])
            for text, words in {
                "mixed_precision: 16": ["mixed_precision: 16; expected no, fp16 or bf16"],
                "machine_rank: 1": ["machine_rank: 1; expected 0"],
                "use_cpu: maybe": ["use_cpu: ", "remove it"],
                "machine_rank: 2020-99-99": ["expected an Accelerate config"],
                "deepspeed_config: {zero_stage: 3}": ["deepspeed_config: only read with"],
                "mixed_precision: []": ["mixed_precision: []; expected no, fp16 or bf16"],
                "num_machines: true": ["num_machines: 'true'; expected 1"],
                "use_cpu: [0x" + "f" * 5000 + "]": ["use_cpu: ", "remove it"],
                "machine_rank: 0x" + "f" * 5000: ["machine_rank: a value of type int; "],
                'debug: !!int ""': ["expected an Accelerate config"],
                "debug: !!bool maybe": ["expected an Accelerate config"],
                "debug: !!timestamp foo": ["expected an Accelerate config"],
                "debug: " + "[" * 3000: ["expected an Accelerate config"],
                "debug: " + "9" * 5000: ["expected an Accelerate config"],
            }.items()
        ),
        pytest.param(
            "distributed_type: DEEPSPEED\n"
            "deepspeed_config: {zero_stage: 2, offload_param_device: cpu}\n",
            ["offload_param_device: 'cpu' needs ZeRO stage 3, this is 2"],
            id="parameters offloaded below stage 3",
        ),
        pytest.param(
            "distributed_type: MULTI_GPU\nnum_machines: 2\n",
            ["num_machines: 2; expected 1"],
            id="several machines",
        ),
        pytest.param(
            NAMES_A_FILE,
            ["deepspeed_config.deepspeed_config_file: cannot read", "No such file"],
            id="no DeepSpeed file",
        ),
    ],
)
def test_invalid_strategy_file_is_refused_with_reason(
    write: Write, strategy: str, words: list[str]
) -> None:
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
        pytest.param("[" * 100_000, ["nested too deeply"], id="nested"),
        pytest.param('{"steps": ' + "9" * 5000 + "}", ["expected a DeepSpeed"], id="a huge number"),
        pytest.param(
            {"zero_optimization": {"stage": 0}}, ["zero_optimization.stage"], id="stage 0"
        ),
        pytest.param(
            {"zero_optimization": {"stage": "auto"}}, ["zero_optimization.stage"], id="stage auto"
        ),
    ],
)
def test_invalid_deepspeed_file_is_refused_with_reason(
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
        pytest.param(
            {"gradient_accumulation_steps": 7},
            ['gradient_accumulation_steps: decided by the workload\'s recipe; expected "auto"'],
            id="what the recipe decides",
        ),
        pytest.param(
            {"optimizer": {"params": ["lr"]}}, ["optimizer.params"], id="a list for parameters"
        ),
        pytest.param(
            {"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}},
            ["offload_param.device: 'cpu' needs ZeRO stage 3"],
            id="parameters offloaded below stage 3",
        ),
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
def test_invalid_deepspeed_setting_is_refused_with_reason(
    write: Write, deepspeed: dict[str, Any], words: list[str]
) -> None:
    message = refusal(write(NAMES_A_FILE, {"zero_optimization": {"stage": 2}} | deepspeed))
    assert all(word in message for word in words), message


def test_typo_in_section_is_refused_with_suggestion(write: Write) -> None:
    message = refusal(
        write(
            "distributed_type: DEEPSPEED\n"
            "deepspeed_config: {zero_stage: 2, offload_optimzer_device: cpu}\n"
        )
    )
    assert "did you mean 'offload_optimizer_device'?" in message


def test_empty_deepspeed_sections_are_ignored(write: Write) -> None:
    empty = dict.fromkeys(("optimizer", "fp16", "bf16", "scheduler"))
    strategy = read_strategy(write(NAMES_A_FILE, {"zero_optimization": {"stage": 2}} | empty))
    assert strategy.optimizer == "AdamW"


def test_accelerate_default_settings_are_accepted(write: Write) -> None:
    path = write(
        "distributed_type: MULTI_GPU\nnum_machines: 1\ntpu_env: []\ntpu_use_cluster: false\n"
        "downcast_bf16: 'no'\n"
    )
    assert read_strategy(path).distributed_type == "MULTI_GPU"
