"""A script that shows a change without zerogate, for those who are to mend it."""

from __future__ import annotations

import pprint
from collections.abc import Mapping
from typing import Any

from zerogate.protocol.cell import Cell
from zerogate.releases.templates import template

WIDTH = 96
STEPS = {"loss": 24, "gradient_norm": 24, "bytes": 3}
REPEAT = 8
"""After how many micro-batches the data begins again, so that there is something to learn."""

SHOWS = {
    "loss": "the loss of each optimizer step",
    "gradient_norm": "the gradient norm of each optimizer step",
    "operators": "the operators of an optimizer step",
    "flops": "the floating point operations of an optimizer step",
    "collectives": "the collectives of an optimizer step",
    "bytes": "bytes held by tensors before the first step and after each, and the peak of one",
}
QUALITY = ("f1", "accuracy", "bleu", "perplexity")


def shown(metric: str) -> str:
    """By what a script shows a change of ``metric``: a key of SHOWS; empty where it cannot."""
    if metric in SHOWS:
        return metric
    if metric in QUALITY:
        return "loss"
    if metric.endswith(("_calls", "_payload_bytes")):
        return "collectives"
    # Disks, samples and learning rates are not in the script.
    return "bytes" if metric.startswith(("peak_", "live_", "leak_", "model_state_")) else ""


def script(cell: Cell, told: Mapping[str, Any], metric: str, title: str) -> str:
    """A Python file that trains the ``cell`` that ``told`` (``rank.description``) describes and prints,
    as JSON, what shows the metric. It imports nothing of zerogate.
    """
    environment = told["environment"]
    fsdp = environment.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    cpu = cell.tier == "cpu"
    deepspeed = told["deepspeed"]
    own = (
        {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"} if cpu else {}
    )
    if fsdp:
        names = [name for name in environment if "FSDP" in name]
        own |= {name: environment[name] for name in names}
    by = shown(metric)
    values = dict(told) | {
        "title": title,
        "world_size": cell.world_size,
        "cpu": cpu,
        "fsdp": fsdp,
        "environment": own,
        "precision": "" if cpu else environment.get("ACCELERATE_MIXED_PRECISION", ""),
        "named_optimizer": bool(deepspeed and "optimizer" in deepspeed),
        # On random data, and without a warm-up, the recipe's would diverge.
        "learning_rate": told["learning_rate"] / 10,
        "shown": by,
        "shows": SHOWS[by],
        "steps": STEPS.get(by),
        "repeat": REPEAT,
    }
    return template("reproduce.py.jinja", literal=_literal, drawn=_drawn).render(values)


def _literal(value: Any) -> str:
    text = pprint.pformat(value, width=WIDTH, sort_dicts=False).replace(": inf", ': float("inf")')
    return f"{{\n {text[1:-1]},\n}}" if "\n" in text else text


def _drawn(tensor: Mapping[str, Any]) -> str:
    """The call that draws integers like those of ``tensor``; filled where they are all the same."""
    shape, low, high = tensor["shape"], tensor["low"], tensor["high"]
    if high - low == 1:
        return f"torch.full({shape}, {low})"
    return f"torch.randint({low}, {high}, {shape})"
