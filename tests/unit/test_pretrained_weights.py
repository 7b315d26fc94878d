"""Pretrained weights: taken from the hub's cache where it has them. Here that is made by hand, of scale
models under the published names; the real ones were never loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from test_workloads import ROOT, load
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from zerogate.worker.accelerator import largest_parameter
from zerogate.worker.workload import Corpus

NAMES = {
    "deberta_mrpc": (AutoModelForSequenceClassification, "deberta_v2_xlarge", {"num_labels": 3}),
    "blenderbot_mudoconv": (AutoModelForSeq2SeqLM, "blenderbot_400m_distill", {}),
}


def real(name: str, tier: str = "gpu") -> Any:
    folder = ROOT / "workloads" / "data" / name.split("_")[1]
    return load(name, tier, Corpus(folder, "real"))  # type: ignore[arg-type]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def publish(name: str, cache: Path) -> Any:
    """A scale model and a tokenizer in the cache, under the repository of the workload; the model."""
    workload = load(name)
    kind, _, changes = NAMES[name]
    config = AutoConfig.for_model(**workload.build_model().config.to_dict() | changes)
    model = kind.from_config(config)
    repository = cache / f"models--{workload.repository.replace('/', '--')}"
    folder = repository / "snapshots" / "0123abcd"
    model.half().save_pretrained(folder)
    tokenizer = workload._tokenizer
    if name == "deberta_mrpc":
        tokenizer = workload._tokenizer(["a sentence of other words"])
    tokenizer.save_pretrained(folder)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abcd")
    return model


@pytest.mark.parametrize("name", NAMES)
def test_model_loads_pretrained_weights_from_cache(cache: Path, name: str) -> None:
    published = publish(name, cache)
    workload = real(name)
    assert workload.pretrained is not None
    found = workload.build_model()
    assert {value.dtype for value in found.parameters()} == {torch.float32}
    theirs = published.float().state_dict()
    own = {key: value for key, value in found.state_dict().items() if "classifier" not in key}
    assert own.keys() <= theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in own.items())


@pytest.mark.parametrize("name", NAMES)
def test_skeleton_has_model_shapes_on_meta_device(cache: Path, name: str) -> None:
    """Loading refuses to be done without memory, and to be sharded where a head does not match."""
    publish(name, cache)
    workload = real(name)
    with torch.device("meta"):
        skeleton = workload.build_skeleton()
    assert {value.device.type for value in skeleton.parameters()} == {"meta"}
    shapes = {key: value.shape for key, value in workload.build_model().named_parameters()}
    assert {key: value.shape for key, value in skeleton.named_parameters()} == shapes
    assert largest_parameter(workload) == max(shape.numel() for shape in shapes.values())


def test_classification_head_has_label_count_of_task(cache: Path) -> None:
    publish("deberta_mrpc", cache)
    assert real("deberta_mrpc").build_model().config.num_labels == 2


def test_tokenizer_is_loaded_from_cache(cache: Path) -> None:
    publish("deberta_mrpc", cache)
    train, _ = real("deberta_mrpc").datasets()
    unknown = 3
    words = [one for sample in train for one in sample["input_ids"] if one > unknown]
    assert set(words) <= set(range(unknown + 1, unknown + 1 + 5)), "five words were published"


@pytest.mark.parametrize("name", NAMES)
def test_pretrained_weights_without_cache_are_absent(cache: Path, name: str) -> None:
    assert real(name).pretrained is None


@pytest.mark.parametrize("name", NAMES)
def test_pretrained_weights_are_absent_for_generated_data_or_cpu_tier(
    cache: Path, name: str
) -> None:
    publish(name, cache)
    assert load(name, "gpu").pretrained is None
    assert real(name, "cpu").pretrained is None


def test_pretrained_weights_of_gpt2_workload_are_absent(cache: Path) -> None:
    assert real("gpt2xl_wikitext2").pretrained is None
