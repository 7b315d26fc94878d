"""A script that shows a change without zerogate, for the package's maintainers."""

from __future__ import annotations

import pprint
from collections.abc import Mapping
from typing import Any

from zerogate.metrics.table import METRICS
from zerogate.protocol.cell import Cell
from zerogate.releases.templates import template

WIDTH = 96
STEPS = {"loss": 24, "gradient_norm": 24, "bytes": 3}
REPEAT = 8
"""Number of micro-batches after which the data repeats, so that there is something to learn."""

SHOWS = {
    "loss": "the loss of each optimizer step",
    "gradient_norm": "the gradient norm of each optimizer step",
    "operators": "the operators of an optimizer step",
    "flops": "the floating point operations of an optimizer step",
    "collectives": "the collectives of an optimizer step",
    "bytes": "bytes held by tensors before the first step and after each, and the peak of one",
}


def shown(metric: str) -> str:
    """Return the key of SHOWS that shows a change of ``metric`` in a script; empty if none does."""
    if metric in SHOWS:
        return metric
    if metric not in METRICS or METRICS[metric].is_quality:
        return "loss"
    if metric.endswith(("_calls", "_payload_bytes")):
        return "collectives"
    # Disks, samples and learning rates are not in the script.
    return "bytes" if metric.startswith(("peak_", "live_", "leak_", "model_state_")) else ""


def script(cell: Cell, description: Mapping[str, Any], metric: str, title: str) -> str:
    """Return a Python script that trains ``cell`` and prints, as JSON, what shows ``metric``.

    ``description`` describes the cell (``worker.description``). The script imports nothing of zerogate.
    """
    environment = description["environment"]
    fsdp = environment.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    cpu = cell.tier == "cpu"
    deepspeed = description["deepspeed"]
    own = (
        {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"} if cpu else {}
    )
    if fsdp:
        names = [name for name in environment if "FSDP" in name]
        own |= {name: environment[name] for name in names}
    by = shown(metric)
    values = dict(description) | {
        "title": title,
        "world_size": cell.world_size,
        "cpu": cpu,
        "fsdp": fsdp,
        "environment": own,
        "precision": "" if cpu else environment.get("ACCELERATE_MIXED_PRECISION", ""),
        "named_optimizer": bool(deepspeed and "optimizer" in deepspeed),
        # The recipe's would diverge on random data without a warm-up.
        "learning_rate": description["learning_rate"] / 10,
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
    """Return the call that draws integers like ``tensor``; ``torch.full`` if all are equal."""
    shape, low, high = tensor["shape"], tensor["low"], tensor["high"]
    if high - low == 1:
        return f"torch.full({shape}, {low})"
    return f"torch.randint({low}, {high}, {shape})"
