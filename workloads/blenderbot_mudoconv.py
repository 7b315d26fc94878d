"""BlenderBot-400M-distill learns to answer in MuDoConv conversations; corpus BLEU."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn.functional import pad
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

from workloads.parts.architecture import (
    fresh_model,
    model_config,
    published_config,
    published_model,
    published_tokenizer,
)
from workloads.parts.batching import mask, padded, repeated
from workloads.parts.scoring import load_metric
from workloads.parts.vocabulary import word_tokenizer
from zerogate.protocol.cell import Tier
from zerogate.protocol.record import Recipe
from zerogate.worker.dataset_files import read_split, split_files
from zerogate.worker.workload import Batch, Quality, Workload

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset

METRIC = "corpus_bleu"
SOURCE_PREFIX = "chatbot: "
PAD, BOS, EOS, UNK = "<pad>", "<s>", "</s>", "<unk>"
PAD_ID, EOS_ID = 0, 2
IGNORED = -100
"""Label of the positions that the loss ignores."""

SCALE = {
    "d_model": 176,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 704,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 704,
    # Scales the full model's 0.02 to this width: 0.02 x sqrt(1280 / 176).
    "init_std": 0.06,
    "dropout": 0.0,
}


@dataclass(frozen=True, slots=True)
class Setting:
    """Lengths in tokens, and generation. ``samples``: numbers for training and for evaluation."""

    samples: tuple[int, int]
    source_length: int
    target_length: int
    min_new_tokens: int
    num_beams: int


SETTINGS: dict[Tier, Setting] = {
    "cpu": Setting((288, 23), source_length=64, target_length=24, min_new_tokens=4, num_beams=2),
    "gpu": Setting(
        (10_000, 1_000),
        source_length=128,
        target_length=64,
        min_new_tokens=20,
        num_beams=10,
    ),
}


class BlenderbotMudoconv(Workload):
    """Contexts and replies, padded to fixed lengths, as the article trains them."""

    version = 1
    full_parameters = 364_802_560
    scale_parameters = 3_201_088
    repository = "facebook/blenderbot-400M-distill"
    layer_classes = ("BlenderbotEncoderLayer", "BlenderbotDecoderLayer")
    quality: ClassVar = {"bleu": Quality(better="higher", learned=40.0)}
    averages_samples = False
    evaluates_by_generating = True
    recipes: ClassVar = {
        "cpu": Recipe(
            micro_batch_size=6,
            eval_micro_batch_size=12,
            epochs=1,
            learning_rate=4e-3,
            warmup_steps=4,
        ),
        "gpu": Recipe(
            micro_batch_size=100,
            eval_micro_batch_size=50,
            epochs=1,
            learning_rate=1e-6,
            warmup_steps=100,
        ),
    }

    @property
    def setting(self) -> Setting:
        return SETTINGS[self.tier]

    def build_model(self) -> torch.nn.Module:
        if self.pretrained:
            return _with_one_embedding(published_model(AutoModelForSeq2SeqLM, self.pretrained))
        return self.build_skeleton()

    def build_skeleton(self) -> torch.nn.Module:
        config = (
            published_config(self.pretrained)
            if self.pretrained
            else model_config("blenderbot_400m_distill", self.tier, SCALE)
        )
        return _with_one_embedding(fresh_model(AutoModelForSeq2SeqLM, config))

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerFast:
        if self.pretrained:
            return published_tokenizer(self.pretrained)
        source, target = first_columns(self.corpus.folder)
        train = self._rows("train")
        return word_tokenizer(
            [SOURCE_PREFIX, *train[source], *train[target]],
            size=model_config("blenderbot_400m_distill", self.tier, SCALE).vocab_size,
            special=(PAD, BOS, EOS, UNK),
            roles={
                "pad_token": PAD,
                "bos_token": BOS,
                "eos_token": EOS,
                "unk_token": UNK,
            },
            single=f"$A {EOS}",
        )

    def _rows(self, split: str) -> Dataset:
        limit = self.setting.samples[0 if split == "train" else 1]
        return read_split(self.corpus.folder, split, first_columns(self.corpus.folder), limit)

    def datasets(self) -> tuple[Sequence[Any], Sequence[Any]]:
        """Return dicts of ``input_ids`` and ``labels``, neither of them padded.

        On the gpu tier the generated corpus is repeated to the article's number of samples.
        """
        load_metric(METRIC)  # Loaded now, so that the evaluation's time leaves it out.
        train, validation = (self._samples(self._rows(split)) for split in ("train", "validation"))
        if self.tier == "gpu" and self.corpus.origin == "generated":
            train = repeated(train, self.setting.samples[0])
            validation = repeated(validation, self.setting.samples[1])
        return train, validation

    def _samples(self, rows: Dataset) -> list[dict[str, list[int]]]:
        source, target = first_columns(self.corpus.folder)
        # A context that is too long loses its beginning: the reply answers the last turn.
        prefixed = [SOURCE_PREFIX + text for text in rows[source]]
        contexts = self._ids(prefixed, self.setting.source_length, side="left")
        replies = self._ids(list(rows[target]), self.setting.target_length, side="right")
        return [
            {"input_ids": context, "labels": reply}
            for context, reply in zip(contexts, replies, strict=True)
        ]

    def _ids(self, texts: list[str], length: int, side: str) -> list[list[int]]:
        """Return the token ids of the texts, cut to ``length`` on the left or the right ``side``."""
        self._tokenizer.truncation_side = side
        ids: list[list[int]] = self._tokenizer(texts, truncation=True, max_length=length)[
            "input_ids"
        ]
        return ids

    def collate(self, samples: list[Any]) -> Batch:
        """Return the tensors of one micro-batch.

        ``input_ids`` and ``attention_mask`` are (batch, source length), ``labels`` (batch, target
        length).
        """
        contexts = [sample["input_ids"] for sample in samples]
        replies = [sample["labels"] for sample in samples]
        return {
            "input_ids": padded(contexts, PAD_ID, self.setting.source_length),
            "attention_mask": mask(contexts, self.setting.source_length),
            "labels": padded(replies, IGNORED, self.setting.target_length),
        }

    def evaluate(
        self, model: torch.nn.Module, loader: Any, accelerator: Accelerator
    ) -> dict[str, float]:
        predictions: list[str] = []
        references: list[str] = []
        for batch in loader:
            replies = self._generate(accelerator.unwrap_model(model), batch)
            replies, labels = accelerator.gather_for_metrics((replies, batch["labels"]))
            labels = labels.masked_fill(labels == IGNORED, PAD_ID)
            predictions += self._tokenizer.batch_decode(replies, skip_special_tokens=True)
            references += self._tokenizer.batch_decode(labels, skip_special_tokens=True)
        scores: dict[str, float] = load_metric(METRIC).compute(
            predictions=predictions, references=references
        )
        return scores

    def _generate(self, model: Any, batch: Batch) -> torch.Tensor:
        """Return replies as ids (batch, 1 + target length), a shape that all ranks share, to gather."""
        setting = self.setting
        ids: torch.Tensor = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            num_beams=setting.num_beams,
            do_sample=False,
            min_new_tokens=setting.min_new_tokens,
            max_new_tokens=setting.target_length,
        )
        return pad(ids, (0, 1 + setting.target_length - ids.shape[1]), value=PAD_ID)


def first_columns(folder: Path) -> tuple[str, str]:
    """Return the names of the context's and the reply's column: the first two columns.

    Raises ValueError if the training files have fewer.
    """
    path = split_files(folder, "train")[0]
    names: list[str] = []
    if path.suffix == ".parquet":
        from pyarrow.parquet import read_schema

        names = read_schema(path).names
    elif path.suffix in {".json", ".jsonl"}:
        with path.open(encoding="utf-8") as lines:
            names = list(json.loads(lines.readline()))
    if len(names) < 2:
        raise ValueError(
            f"{path}: {len(names)} named columns; expected the context's and the reply's, as the "
            "hub ships the data set; use its parquet files or JSON lines"
        )
    return names[0], names[1]


def _with_one_embedding(model: Any) -> torch.nn.Module:
    """Return the model with one module for the three uses of the tied embedding.

    From torch 2.13 on FSDP2 refuses three modules with one parameter: Accelerate groups only the input
    and the output embedding.
    """
    model.model.set_input_embeddings(model.model.shared)
    built: torch.nn.Module = model
    return built
