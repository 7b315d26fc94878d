"""The script that shows a change without zerogate."""

from __future__ import annotations

import ast
import math
from typing import Any

import pytest

from zerogate.metrics.table import METRICS
from zerogate.protocol.cell import Cell
from zerogate.releases.repro_script import script, shown

DEEPSPEED: dict[str, Any] = {
    "train_micro_batch_size_per_gpu": 1,
    "zero_optimization": {"stage": 2, "reduce_bucket_size": 1002232, "allgather_bucket_size": 8},
    "steps_per_print": math.inf,
}
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "ACCELERATE_MIXED_PRECISION": "bf16"}


def told(**changes: Any) -> dict[str, Any]:
    return {
        "environment": {"ACCELERATE_MIXED_PRECISION": "bf16"},
        "deepspeed": None,
        "zero3_init": False,
        "model_class": "GPT2LMHeadModel",
        "model_config": {"model_type": "gpt2", "n_layer": 2},
        "loss_type": "ForCausalLM",
        "layer_classes": ["GPT2Block"],
        "batch": {
            "input_ids": {"shape": [1, 128], "dtype": "torch.int64", "low": 0, "high": 5000},
            "attention_mask": {"shape": [1, 128], "dtype": "torch.int64", "low": 1, "high": 2},
        },
        "learning_rate": 1.5e-3,
        "weight_decay": 0.0,
        "accumulation": 2,
        "max_gradient_norm": 1.0,
        "seed": 25,
        **changes,
    }


ENGINES = {
    "ddp": told(),
    "zero2": told(deepspeed=DEEPSPEED),
    "zero3_nvme": told(deepspeed=DEEPSPEED | {"optimizer": {"type": "AdamW"}}, zero3_init=True),
    "fsdp2": told(environment=FSDP),
}


def written(strategy: str, metric: str, tier: Any = "cpu", title: str = "what changed") -> str:
    cell = Cell(workload="gpt2xl_wikitext2", strategy=strategy, world_size=2, tier=tier)
    return script(cell, ENGINES[strategy], metric, title)


@pytest.mark.parametrize("tier", ["cpu", "gpu"])
@pytest.mark.parametrize("strategy", ENGINES)
@pytest.mark.parametrize("metric", {shown(name): name for name in METRICS if shown(name)}.values())
def test_repro_script_is_valid_python_without_zerogate(
    metric: str, strategy: str, tier: str
) -> None:
    tree = ast.parse(written(strategy, metric, tier))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found = {alias.name for alias in node.names}
            modules |= {node.module or ""} if isinstance(node, ast.ImportFrom) else found
            assert found <= names, "nothing is imported for nothing"
    assert not {one for one in modules if one.startswith("zerogate")}
    assert {"torch", "transformers", "accelerate"} <= modules


@pytest.mark.parametrize("metric", ["learning_rate", "disk_read_bytes", "samples_missed"])
def test_shown_is_empty_for_metric_outside_script(metric: str) -> None:
    assert shown(metric) == ""


def test_shown_is_loss_for_quality_metrics() -> None:
    assert {shown(name) for name in ("f1", "bleu", "perplexity")} == {"loss"}


def test_repro_script_on_gpu_uses_precision_of_strategy() -> None:
    card, cpu = written("ddp", "loss", "gpu"), written("ddp", "loss")
    assert 'mixed_precision="bf16"' in card
    assert "DS_ACCELERATOR" not in card
    assert "mixed_precision" not in cpu
    assert 'backend="gloo"' in cpu


def test_repro_script_uses_full_mask_and_random_ids() -> None:
    text = written("ddp", "loss")
    assert '"attention_mask": torch.full([1, 128], 1)' in text
    assert '"input_ids": torch.randint(0, 5000, [1, 128])' in text
