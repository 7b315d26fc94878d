"""Tensors of the device beside those of the plain CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

DEVICE = "emulated"


def layout(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype


def twin(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor of the device with the same storage contents, sizes, strides and offset."""
    storage = torch.UntypedStorage(tensor.untyped_storage().nbytes(), device=DEVICE)
    storage.copy_(tensor.untyped_storage())
    empty = torch.empty(0, dtype=tensor.dtype, device=DEVICE)
    made = empty.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())
    return made.requires_grad_(tensor.requires_grad)


def twins(values: Any) -> Any:
    """Return values with each tensor's twin in its place, also within lists."""
    return pytree.tree_map(lambda one: twin(one) if isinstance(one, torch.Tensor) else one, values)


def assert_same(ours: Any, expected: Any) -> None:
    """Assert equal values, layouts and dtypes, on the device and on the CPU."""
    found, wanted = pytree.tree_leaves(ours), pytree.tree_leaves(expected)
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        if not isinstance(other, torch.Tensor):
            assert one == other
            continue
        assert one.device.type == DEVICE
        assert layout(one) == layout(other)
        torch.testing.assert_close(
            one.detach().cpu(), other.detach(), rtol=0, atol=0, equal_nan=True
        )


def gradients(outputs: Any, inputs: Any) -> list[torch.Tensor | None]:
    """Return the inputs' gradients of the sum of squares of the outputs."""
    scalars = [
        one.float().square().sum()
        for one in pytree.tree_leaves(outputs)
        if isinstance(one, torch.Tensor) and one.requires_grad
    ]
    wanted = [
        one
        for one in pytree.tree_leaves(inputs)
        if isinstance(one, torch.Tensor) and one.requires_grad
    ]
    return list(torch.autograd.grad(scalars, wanted, allow_unused=True)) if scalars else []


def assert_conforms(call: Callable[..., Any], inputs: list[Any]) -> None:
    """Assert that the call does on the device what it does on the CPU.

    Both draw random numbers from the same seed. What it returns, what it does to its inputs, which of
    them it returns and the gradients are compared.
    """
    ours = twins(inputs)
    torch.manual_seed(7)
    expected = call(*inputs)
    torch.manual_seed(7)
    found = call(*ours)
    assert_same(found, expected)
    assert_same(ours, inputs)
    for one, other in zip(pytree.tree_leaves(ours), pytree.tree_leaves(inputs), strict=True):
        if isinstance(one, torch.Tensor):
            assert (found is one) == (expected is other)
    assert_same(gradients(found, ours), gradients(expected, inputs))
