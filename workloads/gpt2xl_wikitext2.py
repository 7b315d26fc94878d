"""GPT-2 XL learns wikitext-2 from scratch; perplexity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from workloads.parts.architecture import fresh_model, model_config
from workloads.parts.batching import repeated
from workloads.parts.vocabulary import word_tokenizer
from zerogate.protocol.record import Recipe
from zerogate.worker.dataset_files import read_split
from zerogate.worker.workload import Batch, Quality, Workload

if TYPE_CHECKING:
    from accelerate import Accelerator

BLOCK = 128
SCALE = {
    "n_embd": 256,
    "n_layer": 2,
    "n_head": 4,
    "vocab_size": 5000,
    # Scales the full model's 0.02 to this width: 0.02 x sqrt(1600 / 256).
    "initializer_range": 0.05,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
CPU_BLOCKS = (48, 9)
"""Training and evaluation blocks of the cpu tier; only the training ones fill whole global batches."""

GPU_GENERATED_BLOCKS = (640, 61)
"""Blocks that the gpu tier repeats the generated corpus to: 20 training steps on two ranks."""


class Gpt2XlWikitext2(Workload):
    """The text as one long string, cut into blocks of 128 tokens, as the article trains it."""

    version = 1
    full_parameters = 1_557_611_200
    scale_parameters = 3_122_176
    layer_classes = ("GPT2Block",)
    quality: ClassVar = {
        # Word frequencies alone give 90 on the generated corpus.
        "perplexity": Quality(better="lower", learned=55.0)
    }
    recipes: ClassVar = {
        "cpu": Recipe(
            micro_batch_size=1,
            eval_micro_batch_size=2,
            epochs=2,
            learning_rate=1.5e-3,
            warmup_steps=4,
            gradient_accumulation_steps=2,
        ),
        # The article's recipe. Under DDP its 24 GB cards could not fit the model at any batch size.
        "gpu": Recipe(
            micro_batch_size=16,
            eval_micro_batch_size=1,
            epochs=1,
            learning_rate=5e-4,
            warmup_steps=0,
        ),
    }

    def build_model(self) -> torch.nn.Module:
        config = model_config("gpt2_xl", self.tier, SCALE)
        model: Any = fresh_model(AutoModelForCausalLM, config)
        # transformers derives the loss from the class's name and warns if it cannot, as here.
        model.loss_type = "ForCausalLM"
        built: torch.nn.Module = model
        return built

    def datasets(self) -> tuple[Sequence[Any], Sequence[Any]]:
        """Return lists of 128 token ids."""
        train, validation = (
            list(read_split(self.corpus.folder, split, ["text"])["text"])
            for split in ("train", "validation")
        )
        tokenizer = word_tokenizer(
            train,
            size=model_config("gpt2_xl", self.tier, SCALE).vocab_size,
            special=("<eos>", "<unk>"),
            roles={"eos_token": "<eos>", "unk_token": "<unk>"},
            # The corpus is tokenized already: spaces separate words and punctuation.
            split_punctuation=False,
        )

        def blocks(lines: list[str]) -> list[list[int]]:
            # The tokenizer drops all white space, so the end of a line gets a token of its own.
            ids = tokenizer(lines)["input_ids"]
            stream = list(chain.from_iterable([*line, tokenizer.eos_token_id] for line in ids))
            return [stream[i : i + BLOCK] for i in range(0, len(stream) - BLOCK + 1, BLOCK)]

        train_blocks, validation_blocks = blocks(train), blocks(validation)
        if self.tier == "cpu":
            return train_blocks[: CPU_BLOCKS[0]], validation_blocks[: CPU_BLOCKS[1]]
        if self.corpus.origin == "generated":
            train_blocks = repeated(train_blocks, GPU_GENERATED_BLOCKS[0])
            validation_blocks = repeated(validation_blocks, GPU_GENERATED_BLOCKS[1])
        return train_blocks, validation_blocks

    def collate(self, samples: list[Any]) -> Batch:
        """Return ``input_ids`` and ``labels``, both (batch, 128); the model shifts the labels."""
        ids = torch.tensor(samples)
        return {"input_ids": ids, "labels": ids.clone()}

    def evaluate(
        self, model: torch.nn.Module, loader: Any, accelerator: Accelerator
    ) -> dict[str, float]:
        """Return the perplexity: exp of the mean negative log-likelihood of a token, in nats."""
        losses: list[torch.Tensor] = []
        for batch in loader:
            logits = model(input_ids=batch["input_ids"]).logits[:, :-1].float()
            token_loss = cross_entropy(
                logits.transpose(1, 2), batch["labels"][:, 1:], reduction="none"
            )
            # All blocks are equally long, so the mean of the blocks' means is the tokens' mean.
            losses.append(accelerator.gather_for_metrics(token_loss.mean(dim=1)))
        return {"perplexity": math.exp(torch.cat(losses).double().mean().item())}
