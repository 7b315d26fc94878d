"""Inside a rank: who holds the bytes that count as model states, on the device and on the host."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

FOLDER = "ZEROGATE_OWNERS"
"""The environment variable that says where a rank writes what it found."""

DEPTH = 5

LOCKED = "buffers that DeepSpeed page-locks by itself"


def watch() -> None:
    """Have the traced step write down the owners of what it measures. A rank's ``preload``."""
    from zerogate.worker import step_profile as tracing

    settled = tracing._settled

    def watched(cell: Any) -> int:
        on_device = settled(cell)
        totals = {cell.accelerator.device.type: on_device, "cpu": cell.phases.host_bytes}
        outside = page_locked(cell)
        device, host = owners(cell, totals, outside).values()
        path = Path(os.environ[FOLDER]) / f"rank{os.environ['RANK']}.json"
        found = {"device": device, "host": host, "outside": {LOCKED: sum(outside.values())}}
        path.write_text(json.dumps(found))
        return on_device

    tracing._settled = watched


def page_locked(cell: Any) -> dict[int, int]:
    """Bytes of each buffer through which DeepSpeed's swappers read and write files, by address.

    They come from the C library instead of torch's allocator, so they are in no total.
    """
    outer = cell.trainer.optimizer.optimizer
    of_states = getattr(getattr(outer, "optimizer_swapper", None), "swap_buffer_manager", None)
    swappers = (getattr(one, "nvme_swapper", None) for one in cell.trainer.model.parameters())
    of_parameters = next((one for one in swappers if one is not None), None)
    tensors = [*getattr(of_states, "all_buffers", ()), getattr(of_parameters, "buffers", None)]
    storages = [one.untyped_storage() for one in tensors if one is not None]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def owners(
    cell: Any, totals: Mapping[str, int], outside: Iterable[int]
) -> dict[str, dict[str, int]]:
    """Bytes by owner, for each type of device; what nobody is known to own is the rest of its total.

    A storage is counted once, where it lies, for the first that has it. Those ``outside`` are left out.
    """
    outer = cell.trainer.optimizer.optimizer
    inner = getattr(outer, "optimizer", outer)
    parameters = list(cell.trainer.model.parameters())
    groups = [parameter for group in inner.param_groups for parameter in group["params"]]
    found: dict[str, Counter[str]] = {place: Counter() for place in totals}
    seen = set(outside)
    for name, tensors in (
        ("parameters", parameters),
        ("parameters", (getattr(one, "ds_tensor", None) for one in parameters)),
        ("gradients", (one.grad for one in parameters)),
        ("moments", _below(list(inner.state.values()))),
        ("fp32 partition", groups),
        ("partition's gradients", (one.grad for one in groups)),
        *((name, _below(value)) for name, value in sorted(vars(outer).items())),
    ):
        for place, size in _new_bytes(tensors, seen):
            found[place][name] += size
    for place, total in totals.items():
        found[place]["rest"] = total - sum(found[place].values())
    return {
        place: {name: size for name, size in held.items() if size} for place, held in found.items()
    }


def _below(value: Any, depth: int = DEPTH) -> Iterator[Any]:
    """Tensors in ``value``, with their gradients; also those that ZeRO's own objects hold."""
    if isinstance(value, torch.Tensor):
        yield value
        if value.is_leaf:
            yield value.grad
        return
    inside: Iterable[Any] = ()
    if isinstance(value, dict):
        inside = value.values()
    elif isinstance(value, list | tuple | set):
        inside = value
    elif type(value).__module__.startswith(("deepspeed.runtime.zero", "deepspeed.runtime.swap")):
        inside = vars(value).values()
    for one in inside if depth else ():
        yield from _below(one, depth - 1)


def _new_bytes(tensors: Iterable[Any], seen: set[int]) -> Iterator[tuple[str, int]]:
    """Type of device and bytes of each storage that was not seen before."""
    for tensor in tensors:
        if tensor is None:
            continue
        local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        storage = local.untyped_storage()
        if storage.data_ptr() and storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            yield local.device.type, storage.nbytes()
