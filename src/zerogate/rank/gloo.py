"""Makes peaks on gloo exact: a collective is over when gloo has let go of its tensors.

gloo runs a collective on a thread of its own, which tells the caller that it is done a moment before
it drops its references. Whether a gradient bucket is freed before or after the next is allocated is
then a race, and peak bytes differ from run to run. CUDA has no such race: its allocator reuses memory
in stream order. Here the caller waits those microseconds.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

COLLECTIVES = (
    "all_gather",
    "all_gather_into_tensor",
    "all_reduce",
    "broadcast",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
)

BROADCAST = "_broadcast_coalesced"

GIVE_UP_SECONDS = 1.0


def wait_for_release(live_bytes: Callable[[], int]) -> None:
    """Have every synchronous collective of this process return only once it holds nothing.

    ``live_bytes`` is what this process has allocated.
    """
    # DDP's broadcast of the model flattens it into tensors that only gloo and C++ ever see.
    broadcast = getattr(dist, BROADCAST)

    @functools.wraps(broadcast)
    def broadcast_coalesced(*args: Any, **kwargs: Any) -> Any:
        before = live_bytes()
        broadcast(*args, **kwargs)
        _wait_while(lambda: live_bytes() > before)

    setattr(dist, BROADCAST, broadcast_coalesced)
    for name in COLLECTIVES:
        settled = _settled(getattr(dist, name))
        setattr(dist, name, settled)
        setattr(dist.distributed_c10d, name, settled)


def _settled(collective: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(collective)
    def call(*args: Any, **kwargs: Any) -> Any:
        tensors = list(_tensors([*args, *kwargs.values()]))
        storages = [tensor.untyped_storage() for tensor in tensors]
        held = _holders(tensors, storages)
        work = collective(*args, **kwargs)
        if work is not None:
            return work  # Asynchronous: its caller holds the tensors until it waits.
        _wait_while(lambda: _holders(tensors, storages) > held)
        return None

    return call


def _wait_while(held: Callable[[], bool]) -> None:
    give_up = time.monotonic() + GIVE_UP_SECONDS
    while held() and time.monotonic() < give_up:
        time.sleep(0)  # Lets go of the interpreter lock, which gloo's thread may be waiting for.


def _holders(tensors: list[torch.Tensor], storages: list[torch.UntypedStorage]) -> int:
    """How many references to the tensors and to their storages there are in all.

    Storages count apart: a work's future holds them without holding the tensor. So do Python's
    references: gloo's thread drops its own first and then waits for the interpreter lock to drop
    the one on the Python object.
    """
    return (
        sum(_use_count(tensor) + sys.getrefcount(tensor) for tensor in tensors)
        + sum(torch._C._storage_Use_Count(storage._cdata) for storage in storages)
        + sum(map(sys.getrefcount, storages))
    )


def _use_count(tensor: Any) -> int:
    return int(tensor._use_count())


def _tensors(values: list[Any]) -> Any:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(list(value))
