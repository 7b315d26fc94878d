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
    """Return the config in ``models/<name>.json``, on the cpu tier with the fields of ``scale``."""
    fields: dict[str, Any] = json.loads((MODELS / f"{name}.json").read_text(encoding="utf-8"))
    if tier == "cpu":
        # Before the config is built: it derives some fields from others (DeBERTa's pooler size).
        fields.update(scale)
    config: PretrainedConfig = AutoConfig.for_model(**fields)
    return config


def published_model(auto_class: Any, folder: Path, **settings: Any) -> Any:
    """Return a model of ``auto_class`` with the weights in ``folder``, converted to fp32."""
    return auto_class.from_pretrained(folder, dtype=torch.float32, **settings)


def published_config(folder: Path, **settings: Any) -> PretrainedConfig:
    """Return the config of the weights in ``folder``."""
    config: PretrainedConfig = AutoConfig.from_pretrained(folder, **settings)
    return config


def published_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer that the weights in ``folder`` were trained with."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    found: PreTrainedTokenizerFast = tokenizer
    return found


def fresh_model(auto_class: Any, config: PretrainedConfig) -> Any:
    """Return a randomly initialised model of ``auto_class`` (``AutoModelFor…``), in fp32."""
    # By from_config, because there transformers shards parameters under ZeRO-3.
    return auto_class.from_config(config, dtype=torch.float32)
