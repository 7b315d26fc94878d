"""Model configs: full size as published in ``models/*.json``, or scaled down for the cpu tier."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerFast

from zerogate.protocol.cell import Tier

MODELS = Path(__file__).parent.parent / "models"


def model_config(name: str, tier: Tier, scale: Mapping[str, Any]) -> PretrainedConfig:
    """The config in ``models/<name>.json``; the cpu tier's has the fields in ``scale`` replaced."""
    fields: dict[str, Any] = json.loads((MODELS / f"{name}.json").read_text(encoding="utf-8"))
    if tier == "cpu":
        # Before the config is made: some of its fields follow from others (DeBERTa's pooler size).
        fields.update(scale)
    config: PretrainedConfig = AutoConfig.for_model(**fields)
    return config


def published_model(auto_class: Any, folder: Path, **settings: Any) -> Any:
    """A model of ``auto_class`` with the weights in ``folder``, in fp32 whatever they are stored in."""
    return auto_class.from_pretrained(folder, dtype=torch.float32, **settings)


def published_config(folder: Path, **settings: Any) -> PretrainedConfig:
    """The config of the weights in ``folder``."""
    config: PretrainedConfig = AutoConfig.from_pretrained(folder, **settings)
    return config


def published_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer that the weights in ``folder`` were trained with."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    found: PreTrainedTokenizerFast = tokenizer
    return found


def fresh_model(auto_class: Any, config: PretrainedConfig) -> Any:
    """A randomly initialised model of ``auto_class`` (``AutoModelFor…``), in fp32."""
    # Through from_config, because that is where transformers shards parameters under ZeRO-3.
    return auto_class.from_config(config, dtype=torch.float32)
