"""Inside a rank: who holds the bytes that count as model states."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

FOLDER = "ZEROGATE_OWNERS"
"""The environment variable that says where a rank writes what it found."""

DEPTH = 4


def watch() -> None:
    """Have the traced step write down the owners of what it measures. A rank's ``preload``."""
    from zerogate.worker import step_profile as tracing

    settled = tracing._settled

    def watched(cell: Any) -> int:
        total = settled(cell)
        found = owners(cell, total)
        path = Path(os.environ[FOLDER]) / f"rank{os.environ['RANK']}.json"
        path.write_text(json.dumps(found))
        return total

    tracing._settled = watched


def owners(cell: Any, total: int) -> dict[str, int]:
    """Bytes by owner; what nobody is known to own is the rest of ``total``. A storage is counted once,
    for the first that has it.
    """
    outer = cell.trainer.optimizer.optimizer
    inner = getattr(outer, "optimizer", outer)
    parameters = list(cell.trainer.model.parameters())
    groups = [parameter for group in inner.param_groups for parameter in group["params"]]
    found: Counter[str] = Counter()
    seen: set[int] = set()
    for name, tensors in (
        ("parameters", parameters),
        ("parameters", (getattr(one, "ds_tensor", None) for one in parameters)),
        ("gradients", (one.grad for one in parameters)),
        ("moments", _below(list(inner.state.values()))),
        ("fp32 partition", groups),
        ("partition's gradients", (one.grad for one in groups)),
        *((name, _below(value)) for name, value in sorted(vars(outer).items())),
    ):
        found[name] += sum(_new_bytes(tensors, seen))
    found["rest"] = total - sum(found.values())
    return {name: size for name, size in found.items() if size}


def _below(value: Any, depth: int = DEPTH) -> Iterator[Any]:
    """Tensors in ``value``, with their gradients; also those that DeepSpeed's own objects hold."""
    if isinstance(value, torch.Tensor):
        yield value
        if value.is_leaf:
            yield value.grad
        return
    inside: Iterable[Any] = ()
    if isinstance(value, dict):
        inside = value.values()
    elif isinstance(value, list | tuple):
        inside = value
    elif type(value).__name__.startswith("IPGBucket"):
        inside = vars(value).values()
    for one in inside if depth else ():
        yield from _below(one, depth - 1)


def _new_bytes(tensors: Iterable[Any], seen: set[int]) -> Iterator[int]:
    for tensor in tensors:
        if tensor is None:
            continue
        local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        storage = local.untyped_storage()
        if storage.data_ptr() and storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            yield storage.nbytes()
