"""Views, in-place operators, out arguments and storages of the device, as on every device of torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from comparing import DEVICE, assert_same, twin
from drawn import LAYOUTS, laid_out

VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "view": lambda x: x.view(-1),
    "reshape": lambda x: x.reshape(2, 6),
    "transpose": lambda x: x.t(),
    "permute": lambda x: x.permute(1, 0),
    "slice": lambda x: x[1:, ::2],
    "select": lambda x: x[1],
    "expand": lambda x: x[:1].expand(3, 4),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "squeeze": lambda x: x[:1].squeeze(0),
    "narrow": lambda x: x.narrow(1, 1, 2),
    "split": lambda x: x.split(2, 1)[1],
    "chunk": lambda x: x.chunk(2, 1)[0],
    "unbind": lambda x: x.unbind(1)[2],
    "diagonal": torch.Tensor.diagonal,
    "as_strided": lambda x: x.as_strided((2, 2), (4, 1), 1),
    "unfold": lambda x: x.unfold(1, 2, 1),
    "view_as": lambda x: x.view_as(x),
    "detach": torch.Tensor.detach,
    "view_dtype": lambda x: x.view(torch.int32),
}


def numbers(*shape: int) -> torch.Tensor:
    return torch.arange(12.0)[: torch.Size(shape).numel()].view(shape).clone()


@pytest.mark.parametrize("name", VIEWS)
def test_view_shares_its_storage_and_writes_through(name: str) -> None:
    base, expected_base = numbers(3, 4).to(DEVICE), numbers(3, 4)
    view, expected = VIEWS[name](base), VIEWS[name](expected_base)
    assert_same(view, expected)
    assert view.untyped_storage().data_ptr() == base.untyped_storage().data_ptr()
    assert (view._base is base) == (expected._base is expected_base)
    if name != "expand":
        view.fill_(9)
        expected.fill_(9)
        assert_same(base, expected_base)
    if name != "detach":
        assert view._version == base._version


@pytest.mark.parametrize("name", sorted(set(VIEWS) - {"detach", "view_dtype"}))
def test_gradient_through_a_view_equals_the_cpus(name: str) -> None:
    found = numbers(3, 4).to(DEVICE).requires_grad_()
    expected = numbers(3, 4).requires_grad_()
    VIEWS[name](found).square().sum().backward()
    VIEWS[name](expected).square().sum().backward()
    assert_same(found.grad, expected.grad)


def test_write_to_a_base_after_its_view_was_saved_is_an_error() -> None:
    x = torch.ones(3, device=DEVICE, requires_grad=True)
    y = x * 2
    z = y.view(3).square()
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


@pytest.mark.parametrize("kind", [kind for kind in LAYOUTS if kind != "expanded"])
def test_in_place_operator_on_a_layout_writes_to_its_storage(kind: str) -> None:
    expected = laid_out(kind, (3, 4), torch.float32)
    found = twin(expected)
    pointer = found.data_ptr()
    for change in (
        lambda x: x.add_(1),
        lambda x: x.mul_(x.clone()),
        lambda x: x.copy_(torch.ones(4, device=x.device)),
        lambda x: x.masked_fill_(x > 0, 3),
        lambda x: x.clamp_(0, 2),
        lambda x: x.addcmul_(x.clone(), x.clone(), value=0.5),
        lambda x: x.lerp_(torch.zeros_like(x), 0.25),
        lambda x: x.index_fill_(0, torch.tensor([1], device=x.device), 7),
        lambda x: x.t_().t_(),
    ):
        assert change(found) is found
        change(expected)
        assert_same(found, expected)
    assert found.data_ptr() == pointer


def test_out_argument_is_resized_and_returned() -> None:
    for make in (
        lambda device: torch.add(
            torch.ones(2, 3, device=device), 1, out=torch.empty(0, device=device)
        ),
        lambda device: torch.cat(
            [torch.ones(2, device=device)] * 2, out=torch.empty(0, device=device)
        ),
        lambda device: torch.mm(
            torch.ones(2, 3, device=device),
            torch.ones(3, 2, device=device),
            out=torch.empty(0, device=device),
        ),
        lambda device: torch.arange(5, out=torch.empty(0, device=device)),
        lambda device: torch.sum(
            torch.ones(2, 3, device=device), 1, out=torch.empty(0, device=device)
        ),
    ):
        assert_same(make(DEVICE), make("cpu"))
    out = torch.empty(0, device=DEVICE)
    assert torch.add(torch.ones(2, 3, device=DEVICE), 1, out=out) is out
    values, indices = torch.empty(0, device=DEVICE), torch.empty(0, dtype=torch.long, device=DEVICE)
    torch.sort(torch.tensor([2.0, 1.0], device=DEVICE), out=(values, indices))
    assert_same([values, indices], list(torch.sort(torch.tensor([2.0, 1.0]))))


def test_out_argument_of_a_strided_view_is_written_in_place() -> None:
    base = torch.zeros(4, 4, device=DEVICE)
    torch.add(torch.ones(2, 4, device=DEVICE), 1, out=base[::2])
    assert base.cpu().sum(1).tolist() == [8, 0, 8, 0]


def test_resize_keeps_elements_and_grows_the_storage() -> None:
    for device in (DEVICE, "cpu"):
        x = torch.ones(4, device=device)
        assert x.resize_(2) is x
        assert x.resize_(6)[:4].tolist() == [1, 1, 1, 1]
        assert x.untyped_storage().nbytes() == 24


def test_storage_resized_to_nothing_and_back_is_seen_by_its_views() -> None:
    base = torch.ones(4, device=DEVICE)
    view = base[1:]
    storage = base.untyped_storage()
    storage.resize_(0)
    assert storage.nbytes() == 0
    storage.resize_(16)
    base.copy_(torch.arange(4.0))
    assert view.tolist() == [1, 2, 3]
    assert view.untyped_storage().data_ptr() == storage.data_ptr()


def test_storage_of_another_tensor_is_shared_after_set() -> None:
    base = torch.arange(6.0, device=DEVICE)
    x = torch.empty(0, device=DEVICE)
    assert x.set_(base) is x
    x.add_(1)
    assert base.tolist() == [1, 2, 3, 4, 5, 6]
    x.set_(base.untyped_storage(), 1, (2, 2), (2, 1))
    assert x.tolist() == [[2, 3], [4, 5]]
    assert x.set_().shape == (0,)
    x.data = base[2:]
    assert x.data_ptr() == base[2:].data_ptr()


def test_result_of_a_cpu_kernel_owns_device_memory_that_it_can_grow() -> None:
    x = torch.cat([torch.ones(2, device=DEVICE), torch.zeros(2, device=DEVICE)])
    assert x.untyped_storage().device.type == DEVICE
    x.resize_(100)
    assert x.untyped_storage().device.type == DEVICE


def test_gradient_that_is_all_zero_can_be_read() -> None:
    x = torch.tensor([2.0, -1.0], device=DEVICE, requires_grad=True)
    (gradient,) = torch.autograd.grad(torch.sgn(x).sum(), x)
    assert gradient.tolist() == [0, 0]
