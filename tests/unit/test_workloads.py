"""The three workloads: sizes of their models, shapes of their batches, their metrics."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from zerogate.worker.workload import Corpus, Workload

if TYPE_CHECKING:
    from zerogate.protocol.cell import Tier

ROOT = Path(__file__).parents[2]
NAMES = ("deberta_mrpc", "blenderbot_mudoconv", "gpt2xl_wikitext2")
TIED = {
    "blenderbot_mudoconv": ("lm_head.weight", "model.shared.weight"),
    "gpt2xl_wikitext2": ("lm_head.weight", "transformer.wte.weight"),
}
RANKS = 2


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])


def load(name: str, tier: Tier = "cpu", corpus: Corpus | None = None) -> Any:
    """The one workload of ``workloads/<name>.py``, made."""
    path = ROOT / "workloads" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"loaded_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    [found] = [
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, Workload)
        if item.__module__ == module.__name__
    ]
    folder = ROOT / "workloads" / "data" / name.split("_")[1]
    return found(tier=tier, corpus=corpus or Corpus(folder, "generated"))


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_full_size_model_has_published_size(name: str) -> None:
    workload = load(name, "gpu")
    with torch.device("meta"):
        model = workload.build_model()
    assert parameters(model) == workload.parameters == workload.full_parameters
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert any(
        isinstance(part, torch.nn.Dropout) and part.p == 0.1 for part in model.modules()
    ) or (model.config.dropout == 0.1)


def test_full_parameter_counts_match_published_models() -> None:
    sizes = [load(name).full_parameters for name in NAMES]
    assert sizes == [886_957_058, 364_802_560, 1_557_611_200]


@pytest.mark.parametrize("name", NAMES)
def test_scale_model_is_small_fp32_and_without_dropout(name: str) -> None:
    workload = load(name)
    model = workload.build_model()
    assert parameters(model) == workload.parameters == workload.scale_parameters
    assert 3_000_000 <= parameters(model) <= 10_000_000
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    # Strategies are compared number by number, and dropout draws from each rank's own generator.
    dropouts = [part.p for part in model.modules() if isinstance(part, torch.nn.Dropout)]
    assert not any(dropouts)
    # Attention reads its own from the config. GPT-2's summary head is not part of the model.
    fields = [name for name in model.config.to_dict() if "drop" in name and "summary" not in name]
    assert not any(getattr(model.config, name) for name in fields)
    assert set(workload.layer_classes) <= {type(part).__name__ for part in model.modules()}


@pytest.mark.parametrize("name", TIED)
def test_head_is_tied_to_embedding(name: str) -> None:
    model = load(name).build_model()
    head, embedding = TIED[name]
    assert model.get_parameter(head) is model.get_parameter(embedding)


def test_deberta_scale_model_keeps_architecture() -> None:
    model = load("deberta_mrpc").build_model()
    names = {type(part).__name__ for part in model.modules()}
    assert {"ConvLayer", "DisentangledSelfAttention"} <= names
    assert model.deberta.encoder.rel_embeddings.weight.shape == (64, 64)


@pytest.mark.parametrize("name", NAMES)
def test_dataset_sizes_give_full_batches_and_partial_eval_batch(name: str) -> None:
    workload = load(name)
    recipe = workload.recipe
    train, evaluation = workload.datasets()
    global_batch = RANKS * recipe.micro_batch_size * recipe.gradient_accumulation_steps
    assert len(train) % global_batch == 0
    assert 20 <= len(train) // global_batch * recipe.epochs <= 40
    assert len(evaluation) % (RANKS * recipe.eval_micro_batch_size) != 0


@pytest.mark.parametrize("name", NAMES)
def test_tokenizing_is_deterministic(name: str) -> None:
    assert load(name).datasets() == load(name).datasets()


def test_vocabulary_is_capped_and_ties_are_alphabetical() -> None:
    from workloads.parts.vocabulary import word_tokenizer

    tokenizer = word_tokenizer(
        ["b a, c", "c d"], size=4, special=("<unk>",), roles={"unk_token": "<unk>"}
    )
    assert tokenizer.get_vocab() == {"<unk>": 0, "c": 1, ",": 2, "a": 3}
    assert tokenizer("c, b")["input_ids"] == [1, 2, 0]


@pytest.mark.parametrize(("tier", "width"), [("cpu", None), ("gpu", 128)])
def test_deberta_batch_is_padded_to_longest_or_on_gpu_to_128(tier: Tier, width: int | None) -> None:
    workload = load("deberta_mrpc", tier)
    samples = workload.datasets()[0][:3]
    longest = width or max(len(sample["input_ids"]) for sample in samples)
    batch = workload.collate(samples)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, longest)
    assert batch["labels"].shape == (3,)
    assert torch.equal(batch["attention_mask"] == 0, batch["input_ids"] == 0)


@pytest.mark.parametrize(("tier", "lengths"), [("cpu", (64, 24)), ("gpu", (128, 64))])
def test_blenderbot_batch_is_padded_to_fixed_lengths(tier: Tier, lengths: tuple[int, int]) -> None:
    workload = load("blenderbot_mudoconv", tier)
    batch = workload.collate(workload.datasets()[0][:16])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (16, lengths[0])
    assert batch["labels"].shape == (16, lengths[1])
    assert (batch["labels"] == -100).any()
    assert not (batch["labels"] == 0).any()


def test_blenderbot_long_context_is_truncated_and_keeps_its_end() -> None:
    workload = load("blenderbot_mudoconv")
    train, _ = workload.datasets()
    longest = max(train, key=lambda sample: len(sample["input_ids"]))
    assert len(longest["input_ids"]) == 64
    assert longest["input_ids"][-1] == 2
    assert all(len(sample["labels"]) <= 24 for sample in train)


def test_gpt2_batch_has_blocks_of_128_tokens() -> None:
    workload = load("gpt2xl_wikitext2")
    batch = workload.collate(workload.datasets()[0][:3])
    assert batch["input_ids"].shape == batch["labels"].shape == (3, 128)
    assert batch["input_ids"].max() < workload.build_model().config.vocab_size


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("blenderbot_mudoconv", (10_000, 1_000)), ("gpt2xl_wikitext2", (640, 61))],
)
def test_generated_corpus_is_repeated_on_gpu_tier(name: str, sizes: tuple[int, int]) -> None:
    train, evaluation = load(name, "gpu").datasets()
    assert (len(train), len(evaluation)) == sizes


def test_real_corpus_is_not_repeated(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "workloads" / "data" / "wikitext2", tmp_path, dirs_exist_ok=True)
    train, _ = load("gpt2xl_wikitext2", "gpu", Corpus(tmp_path, "real")).datasets()
    assert len(train) < 640


@pytest.mark.parametrize("name", NAMES)
def test_untrained_model_does_not_reach_learned_score(name: str) -> None:
    from accelerate import Accelerator

    torch.manual_seed(0)
    workload = load(name)
    _, evaluation = workload.datasets()
    loader = torch.utils.data.DataLoader(
        evaluation,
        batch_size=workload.recipe.eval_micro_batch_size,
        collate_fn=workload.collate,
    )
    accelerator = Accelerator(cpu=True)
    model = workload.build_model().eval()
    with torch.no_grad():
        scores = workload.evaluate(model, accelerator.prepare(loader), accelerator)
    assert scores.keys() == workload.quality.keys()
    for metric, quality in workload.quality.items():
        if quality.better == "higher":
            assert scores[metric] < 0.9 * quality.learned
        else:
            assert scores[metric] > 2 * quality.learned


def test_metrics_give_known_values() -> None:
    from workloads.parts.scoring import load_metric

    scores = load_metric("f1_accuracy").compute(
        predictions=[1, 1, 0, 0, 1], references=[1, 0, 0, 1, 1]
    )
    assert scores == pytest.approx({"f1": 2 / 3, "accuracy": 0.6})
    never = load_metric("f1_accuracy").compute(predictions=[0, 0], references=[1, 0])
    assert never == pytest.approx({"f1": 0.0, "accuracy": 0.5})

    text = "the cat sat on the mat by the door"
    bleu = load_metric("corpus_bleu")
    assert bleu.compute(predictions=[text], references=[text])["bleu"] == pytest.approx(100)
    # Precisions 5/6, 3/5, 1/4 and 0.5/3 (smoothed), lengths equal: their geometric mean.
    near = bleu.compute(
        predictions=["the cat sat near the mat"], references=["the cat sat on the mat"]
    )
    mean: float = (5 / 6 * 3 / 5 * 1 / 4 * 0.5 / 3) ** 0.25
    assert near["bleu"] == pytest.approx(100 * mean)


def test_blenderbot_replies_have_fixed_shape() -> None:
    workload = load("blenderbot_mudoconv")
    samples = workload.datasets()[1]
    model = workload.build_model().eval()
    batch = workload.collate(samples[:2])
    with torch.no_grad():
        replies = workload._generate(model, batch)
    assert replies.shape == (2, 25)
