"""Exact memory peaks on gloo: a collective returns only when gloo has released its tensors.

gloo runs a collective on its own thread, which reports completion a moment before it drops its
references. Then it is a race whether a gradient bucket is freed before or after the next one is
allocated, and peak bytes differ from run to run. CUDA has no such race: its allocator reuses memory
in stream order. Here the caller waits those microseconds. A collective that an engine starts
asynchronously is finished before its work is returned, which is stream order too. With a rank on
every core nothing could overlap anyway.
"""

from __future__ import annotations

import functools
import inspect
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import _functional_collectives as functional

# Some have a new name since torch 2.13, and keep the old one.
COLLECTIVES = (
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_single",
    "all_reduce",
    "broadcast",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_single",
    "reduce_scatter_tensor",
)

# DDP calls these when it is built. They create tensors that only gloo and C++ see.
NATIVE = ("_broadcast_coalesced", "_verify_params_across_processes")

GIVE_UP_SECONDS = 1.0

RELEASE_SECONDS = 0.05
"""Time for gloo's thread to release tensors of collectives that no caller waits for."""


def make_collectives_wait(live_bytes: Callable[[], int]) -> None:
    """Make every collective of this process return only when gloo has released its tensors.

    ``live_bytes`` returns the bytes that this process has allocated.
    """
    functional.wait_tensor = _released(functional.wait_tensor)
    for name in NATIVE:
        setattr(dist, name, _settled_native(getattr(dist, name), live_bytes))
    for name in COLLECTIVES:
        if hasattr(dist, name):
            settled = _settled(getattr(dist, name), live_bytes)
            setattr(dist, name, settled)
            setattr(dist.distributed_c10d, name, settled)


def once_released(live_bytes: Callable[[], int]) -> int:
    """Return the live bytes without what gloo still holds of torch's functional collectives.

    A release only lowers the live bytes, so the minimum over RELEASE_SECONDS is the answer.
    """
    least = live_bytes()
    give_up = time.monotonic() + RELEASE_SECONDS
    while time.monotonic() < give_up:
        time.sleep(0)  # Releases the interpreter lock, which gloo's thread may be waiting for.
        least = min(least, live_bytes())
    return least


def _released(wait_tensor: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return ``wait_tensor`` of torch's functional collectives (FSDP2's gradient norm is one), which
    returns only when nobody but its caller holds the result.
    """

    @functools.wraps(wait_tensor)
    def call(tensor: Any) -> Any:
        result = wait_tensor(tensor)
        storage = result.untyped_storage()
        # Two: the tensor's own reference, and the one of the object above.
        _wait_while(
            lambda: _use_count(result) > 1 or torch._C._storage_Use_Count(storage._cdata) > 2,
            RELEASE_SECONDS,
        )
        return result

    return call


def _settled_native(
    function: Callable[..., Any], live_bytes: Callable[[], int]
) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        before = live_bytes()
        result = function(*args, **kwargs)
        _wait_while(lambda: live_bytes() > before)
        return result

    return call


def _settled(collective: Callable[..., Any], live_bytes: Callable[[], int]) -> Callable[..., Any]:
    signature = inspect.signature(collective)

    @functools.wraps(collective)
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        asynchronous = bound.arguments.get("async_op", False)
        if asynchronous:
            bound.arguments["async_op"] = False
        tensors = list(_tensors(list(bound.arguments.values())))
        storages = [tensor.untyped_storage() for tensor in tensors]
        held = _holders(tensors, storages)
        # Some collectives work on copies of their own. The caller allocated the arguments, so live
        # bytes are the same before and after.
        before = live_bytes()
        collective(*bound.args, **bound.kwargs)
        _wait_while(lambda: _holders(tensors, storages) > held or live_bytes() > before)
        return _finished_work() if asynchronous else None

    return call


def _finished_work() -> Any:
    """Return a finished work, so that waiting for it returns at once."""
    future: torch.futures.Future[list[torch.Tensor]] = torch.futures.Future()
    future.set_result([])
    c10d: Any = torch._C._distributed_c10d
    return c10d._create_work_from_future(future)


def _wait_while(held: Callable[[], bool], seconds: float = GIVE_UP_SECONDS) -> None:
    give_up = time.monotonic() + seconds
    while held() and time.monotonic() < give_up:
        time.sleep(0)  # Releases the interpreter lock, which gloo's thread may be waiting for.


def _holders(tensors: list[torch.Tensor], storages: list[torch.UntypedStorage]) -> int:
    """Return the number of references to the tensors and to their storages.

    Storages count separately: a work's future holds them without holding the tensor. So do Python's
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
