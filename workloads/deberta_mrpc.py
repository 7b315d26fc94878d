"""DeBERTa-v2-xlarge learns which MRPC sentence pairs are paraphrases; F1 and accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from workloads.parts.architecture import (
    fresh_model,
    model_config,
    published_config,
    published_model,
    published_tokenizer,
)
from workloads.parts.batching import mask, padded
from workloads.parts.scoring import load_metric
from workloads.parts.vocabulary import word_tokenizer
from zerogate.protocol.record import Recipe
from zerogate.worker.dataset_files import read_split
from zerogate.worker.workload import Batch, Quality, Workload

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset

METRIC = "f1_accuracy"
MAX_LENGTH = 128
"""Largest number of tokens of a pair, special ones included."""

SCALE = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "attention_head_size": 16,
    "intermediate_size": 256,
    "position_buckets": 32,
    # Most of these words are never used: they add parameters to shard, but no arithmetic.
    "vocab_size": 48000,
    # Scales the full model's 0.02 to this width: 0.02 x sqrt(1536 / 64).
    "initializer_range": 0.1,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}

CPU_ROWS = (256, 61)
"""Training and evaluation rows of the cpu tier; only the training rows fill whole global batches."""


class DebertaMrpc(Workload):
    """Sentence pairs, padded to the longest of the micro-batch, as the article trains them.

    The gpu tier pads to MAX_LENGTH, so that the batch size that fits does not depend on the data.
    """

    version = 1
    full_parameters = 886_957_058
    scale_parameters = 3_193_090
    repository = "microsoft/deberta-v2-xlarge-mnli"
    layer_classes = ("DebertaV2Layer",)
    quality: ClassVar = {
        # A model that learned nothing always answers one class; if that is class 1, F1 is 2/3.
        "f1": Quality(better="higher", learned=0.9),
        "accuracy": Quality(better="higher", learned=0.9),
    }
    recipes: ClassVar = {
        "cpu": Recipe(
            micro_batch_size=8,
            eval_micro_batch_size=8,
            epochs=2,
            learning_rate=2e-3,
            warmup_steps=4,
        ),
        "gpu": Recipe(
            micro_batch_size=8,
            eval_micro_batch_size=8,
            epochs=3,
            learning_rate=2e-5,
            warmup_steps=0,
        ),
    }

    def build_model(self) -> torch.nn.Module:
        if not self.pretrained:
            return self.build_skeleton()
        # Replaces the head for three classes: MRPC has two.
        model: torch.nn.Module = published_model(
            AutoModelForSequenceClassification,
            self.pretrained,
            num_labels=2,
            ignore_mismatched_sizes=True,
        )
        return model

    def build_skeleton(self) -> torch.nn.Module:
        if self.pretrained:
            config = published_config(self.pretrained, num_labels=2)
        else:
            config = model_config("deberta_v2_xlarge", self.tier, SCALE)
        model: torch.nn.Module = fresh_model(AutoModelForSequenceClassification, config)
        return model

    def datasets(self) -> tuple[Sequence[Any], Sequence[Any]]:
        """Return dicts of ``input_ids`` (at most 128) and ``label``, 0 or 1."""
        load_metric(METRIC)  # Loaded now, so that the evaluation's time leaves it out.
        columns = ("sentence1", "sentence2", "label")
        limits = CPU_ROWS if self.tier == "cpu" else (None, None)
        train, validation = (
            read_split(self.corpus.folder, split, columns, limit)
            for split, limit in zip(("train", "validation"), limits, strict=True)
        )
        tokenizer = self._tokenizer([*train["sentence1"], *train["sentence2"]])
        return _samples(tokenizer, train), _samples(tokenizer, validation)

    def _tokenizer(self, texts: list[str]) -> PreTrainedTokenizerFast:
        if self.pretrained:
            return published_tokenizer(self.pretrained)
        size: int = model_config("deberta_v2_xlarge", self.tier, SCALE).vocab_size
        return word_tokenizer(
            texts,
            size=size,
            special=("[PAD]", "[CLS]", "[SEP]", "[UNK]"),
            roles={
                "pad_token": "[PAD]",
                "cls_token": "[CLS]",
                "sep_token": "[SEP]",
                "unk_token": "[UNK]",
            },
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B [SEP]",
        )

    def collate(self, samples: list[Any]) -> Batch:
        """Return ``input_ids``, ``attention_mask`` (batch, longest or 128) and ``labels`` (batch)."""
        rows = [sample["input_ids"] for sample in samples]
        length = MAX_LENGTH if self.tier == "gpu" else None
        return {
            "input_ids": padded(rows, 0, length),
            "attention_mask": mask(rows, length),
            "labels": torch.tensor([sample["label"] for sample in samples]),
        }

    def evaluate(
        self, model: torch.nn.Module, loader: Any, accelerator: Accelerator
    ) -> dict[str, float]:
        predictions: list[int] = []
        references: list[int] = []
        for batch in loader:
            answers = model(**batch).logits.argmax(dim=-1)
            answers, labels = accelerator.gather_for_metrics((answers, batch["labels"]))
            predictions += answers.tolist()
            references += labels.tolist()
        scores: dict[str, float] = load_metric(METRIC).compute(
            predictions=predictions, references=references
        )
        return scores


def _samples(tokenizer: PreTrainedTokenizerFast, rows: Dataset) -> list[dict[str, Any]]:
    pairs = (list(rows["sentence1"]), list(rows["sentence2"]))
    encoded = tokenizer(*pairs, truncation=True, max_length=MAX_LENGTH)["input_ids"]
    return [
        {"input_ids": ids, "label": label}
        for ids, label in zip(encoded, rows["label"], strict=True)
    ]
