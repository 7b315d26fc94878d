"""``torch.emulated``: the device of the cpu tier as torch's Python side knows it.

Its tensors lie in host memory and its kernels are the CPU's (``worker/native``), but it is a device:
tensors are copied to it and from it, it has memory and a budget of its own, and mixing it with the host
in one operation is an error. The module offers what torch, Accelerate and DeepSpeed ask of a device
module, as ``torch.cuda`` does.
"""

from __future__ import annotations

import contextlib
import os
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.backend_registration import (
    generate_methods_for_privateuse1_backend,
    rename_privateuse1_backend,
)

if TYPE_CHECKING:
    from zerogate.worker.native_library import NativeLibrary

NAME = "emulated"


def register(library: NativeLibrary) -> None:
    """Make ``torch.device("emulated")`` usable in this process; ``library`` is loaded already.

    There are as many devices as ranks on this machine, and each rank uses its own.
    """
    rename_privateuse1_backend(NAME)
    torch._register_device_module(NAME, _module(library))
    generate_methods_for_privateuse1_backend()
    # As one thread does the work of all devices, the order in which tensors are freed is the same in
    # every run, and peaks are exact.
    torch.autograd.set_multithreading_enabled(False)


def use(index: int) -> None:
    """Make the device of that index the current one."""
    torch.accelerator.set_device_index(index)


def stream(device: Any = None, priority: int = 0, **more: Any) -> torch.Stream:
    """Return a stream of the device. Its work is done when the call that begins it returns."""
    return torch.Stream(device=_device(device), priority=priority, **more)


def default_stream(device: Any = None) -> torch.Stream:
    """Return the stream that work is on when no other was asked for."""
    current = torch.accelerator.current_stream(_device(device))
    return torch.Stream(
        stream_id=0, device_index=current.device_index, device_type=current.device_type
    )


def event(*, enable_timing: bool = False, blocking: bool = False) -> torch.Event:
    """Return an event of the device; it remembers when it was recorded."""
    return torch.Event(NAME, enable_timing=enable_timing, blocking=blocking)


def _device(device: Any = None) -> torch.device:
    if device is None:
        return torch.device(NAME, _current())
    if isinstance(device, int):
        return torch.device(NAME, device)
    return torch.device(device)


def _current() -> int:
    return torch.accelerator.current_device_index()


class _Properties:
    """Properties of the device, by the names of ``torch.cuda.get_device_properties``."""

    def __init__(self) -> None:
        self.name = "emulated in host memory"
        self.total_memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self.multi_processor_count = 1


@contextlib.contextmanager
def _on_device(device: Any) -> Iterator[None]:
    before = _current()
    torch.accelerator.set_device_index(_device(device).index or 0)
    try:
        yield
    finally:
        torch.accelerator.set_device_index(before)


@contextlib.contextmanager
def _on_stream(used: torch.Stream | None) -> Iterator[None]:
    if used is None:
        yield
        return
    before = torch.accelerator.current_stream()
    torch.accelerator.set_stream(used)
    try:
        yield
    finally:
        torch.accelerator.set_stream(before)


def _random_numbers() -> dict[str, Any]:
    """Return the functions on the device's default generator, which torch cannot show by itself."""
    generator = torch.Generator(device=NAME)
    torch.ops.zerogate.set_default_generator(generator)
    return {
        "default_generators": (generator,),
        "manual_seed": generator.manual_seed,
        "manual_seed_all": generator.manual_seed,
        "seed": generator.seed,
        "seed_all": generator.seed,
        "initial_seed": generator.initial_seed,
        "get_rng_state": lambda device=None: generator.get_state(),
        "set_rng_state": lambda state, device=None: generator.set_state(state),
    }


def _module(library: NativeLibrary) -> types.ModuleType:
    functions: dict[str, Any] = {
        "Stream": stream,
        "Event": event,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_initialized": True,  # Activation checkpointing keeps random states only if this is set.
        "init": lambda: None,
        "_is_in_bad_fork": lambda: False,
        "is_bf16_supported": lambda *_: True,
        "get_amp_supported_dtype": lambda: [torch.bfloat16, torch.float16],
        "device_count": torch._C._accelerator_hooks_device_count,
        "current_device": _current,
        "set_device": lambda device: torch.accelerator.set_device_index(_device(device).index or 0),
        "synchronize": lambda device=None: torch.accelerator.synchronize(_device(device)),
        "device": _on_device,
        "stream": _on_stream,
        "current_stream": lambda device=None: torch.accelerator.current_stream(_device(device)),
        "default_stream": default_stream,
        "empty_cache": lambda: None,
        "memory_allocated": lambda *_: library.device.live_bytes(),
        "max_memory_allocated": lambda *_: library.device.peak_bytes(),
        "reset_peak_memory_stats": lambda *_: library.device.reset_peak(),
        "get_device_properties": lambda *_: _Properties(),
    }
    module = types.ModuleType(f"torch.{NAME}")
    for name, function in (functions | _random_numbers()).items():
        setattr(module, name, function)
    return module
