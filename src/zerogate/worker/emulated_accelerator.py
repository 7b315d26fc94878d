"""DeepSpeed's accelerator for the emulated device.

Its ops are those of DeepSpeed's CPU accelerator, as are the kernels. All else is answered as for a
card: there are streams to use, host memory to pin, and tensors on the host are elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from deepspeed.accelerator import set_accelerator
from deepspeed.accelerator.abstract_accelerator import DeepSpeedAccelerator
from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

from zerogate.worker.emulated_device import NAME

if TYPE_CHECKING:
    from collections.abc import Callable

TYPED_TENSORS = {
    "BFloat16Tensor": torch.bfloat16,
    "ByteTensor": torch.uint8,
    "DoubleTensor": torch.float64,
    "FloatTensor": torch.float32,
    "HalfTensor": torch.float16,
    "IntTensor": torch.int32,
    "LongTensor": torch.int64,
}

OPS_OF_A_HOST = ("ShareMemCommBuilder", "CCLCommBuilder")
"""Collectives for tensors of the host."""


class EmulatedAccelerator(CPU_Accelerator):  # type: ignore[misc]  # DeepSpeed has no types.
    """The device of the cpu tier, as DeepSpeed asks for it."""

    _torch_pins_host_memory = True

    def __init__(self) -> None:
        super().__init__()
        self._name = NAME
        self._module: Any = torch.get_device_module(NAME)

    def is_synchronized_device(self) -> bool:
        return False

    def device_name(self, device_index: int | None = None) -> str:
        return NAME if device_index is None else f"{NAME}:{device_index}"

    def device(self, device_index: int | None = None) -> torch.device:
        return torch.device(NAME, self.current_device() if device_index is None else device_index)

    def set_device(self, device_index: int) -> None:
        self._module.set_device(device_index)

    def current_device(self) -> int:
        return int(self._module.current_device())

    def current_device_name(self) -> str:
        return self.device_name(self.current_device())

    def device_count(self) -> int:
        return int(self._module.device_count())

    def synchronize(self, device_index: int | None = None) -> None:
        self._module.synchronize(device_index)

    def set_rng_state(self, new_state: torch.Tensor, device_index: int | None = None) -> None:
        self._module.set_rng_state(new_state, device_index)

    def get_rng_state(self, device_index: int | None = None) -> torch.Tensor:
        state: torch.Tensor = self._module.get_rng_state(device_index)
        return state

    def manual_seed(self, seed: int) -> None:
        self._module.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        self._module.manual_seed_all(seed)

    def initial_seed(self) -> int:
        return int(self._module.initial_seed())

    def default_generator(self, device_index: int) -> torch.Generator:
        generator: torch.Generator = self._module.default_generators[0]
        return generator

    @property
    def Stream(self) -> Callable[..., torch.Stream]:
        stream: Callable[..., torch.Stream] = self._module.Stream
        return stream

    def stream(self, stream: torch.Stream) -> Any:
        return self._module.stream(stream)

    def current_stream(self, device_index: int | None = None) -> torch.Stream:
        stream: torch.Stream = self._module.current_stream(device_index)
        return stream

    def default_stream(self, device_index: int | None = None) -> torch.Stream:
        stream: torch.Stream = self._module.default_stream(device_index)
        return stream

    @property
    def Event(self) -> Callable[..., torch.Event]:
        event: Callable[..., torch.Event] = self._module.Event
        return event

    def memory_allocated(self, device_index: int | None = None) -> int:
        return int(self._module.memory_allocated(device_index))

    def max_memory_allocated(self, device_index: int | None = None) -> int:
        return int(self._module.max_memory_allocated(device_index))

    def reset_max_memory_allocated(self, device_index: int | None = None) -> None:
        """Do nothing: the peak belongs to the phase that is measured."""

    reset_peak_memory_stats = reset_max_memory_cached = reset_max_memory_allocated
    memory_cached = memory_reserved = memory_allocated
    max_memory_cached = max_memory_reserved = max_memory_allocated

    def memory_stats(self, device_index: int | None = None) -> dict[str, int]:
        return {
            "allocated_bytes.all.current": self.memory_allocated(device_index),
            "allocated_bytes.all.peak": self.max_memory_allocated(device_index),
        }

    def on_accelerator(self, tensor: torch.Tensor) -> bool:
        return tensor.device.type == NAME

    def is_fp16_supported(self) -> bool:
        return True

    def get_op_builder(self, class_name: str) -> Any:
        return None if class_name in OPS_OF_A_HOST else super().get_op_builder(class_name)

    def visible_devices_envs(self) -> list[str]:
        return []


def _typed_tensor(dtype: torch.dtype) -> property:
    def constructor(self: EmulatedAccelerator) -> Callable[..., torch.Tensor]:
        def make(*size: Any) -> torch.Tensor:
            if len(size) == 1 and not isinstance(size[0], int):
                return torch.tensor(size[0], dtype=dtype, device=self.current_device_name())
            return torch.empty(size, dtype=dtype, device=self.current_device_name())

        return make

    return property(constructor)


def _pin(self: EmulatedAccelerator, tensor: torch.Tensor, align_bytes: int = 1) -> torch.Tensor:
    return tensor.pin_memory()


for _name, _dtype in TYPED_TENSORS.items():
    setattr(EmulatedAccelerator, _name, _typed_tensor(_dtype))
# The CPU accelerator does not pin. The base class does, or in older releases nothing does.
for _name in ("pin_memory", "_torch_pin_memory", "_torch_empty_pinned"):
    if _base := getattr(DeepSpeedAccelerator, _name, None):
        setattr(EmulatedAccelerator, _name, _base)
if getattr(DeepSpeedAccelerator.pin_memory, "__isabstractmethod__", False):
    EmulatedAccelerator.pin_memory = _pin


def use_emulated_device() -> None:
    """Make DeepSpeed run on the emulated device, which torch must know already."""
    set_accelerator(EmulatedAccelerator())
