"""What lies on the device and what on the host: mixing them, moving modules, saving and loading."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from comparing import DEVICE, assert_same
from drawn import LAYOUTS, laid_out

MIXES: dict[str, Callable[[torch.Tensor, torch.Tensor], Any]] = {
    "add": lambda host, device: device + host,
    "add_reversed": lambda host, device: host + device,
    "add_": lambda host, device: device.add_(host),
    "add_to_host": lambda host, device: host.clone().add_(device),
    "mm": lambda host, device: device @ host,
    "linear": lambda host, device: torch.nn.functional.linear(device, host),
    "cat": lambda host, device: torch.cat([device, host]),
    "stack": lambda host, device: torch.stack([host, device]),
    "where": lambda host, device: torch.where(device > 0, device, host),
    "layer_norm": lambda host, device: torch.nn.functional.layer_norm(device, (2,), host[0]),
    "embedding": lambda host, device: torch.nn.functional.embedding(host.long(), device),
    "out": lambda host, device: torch.add(device, device, out=host.clone()),
    "gather": lambda host, device: device.gather(0, host.long() - 1),
    "foreach": lambda host, device: torch._foreach_add([device], [host]),
}


@pytest.mark.parametrize("name", MIXES)
def test_mixing_host_and_device_is_refused_as_on_cuda(name: str) -> None:
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        MIXES[name](torch.ones(2, 2), torch.ones(2, 2, device=DEVICE))


def test_scalar_of_the_host_goes_with_the_device() -> None:
    x = torch.ones(2, device=DEVICE)
    for made in (x * torch.tensor(3.0), torch.tensor(3.0) * x, torch.where(x > 0, 3.0, x)):
        assert made.device.type == DEVICE
        assert made.tolist() == [3, 3]


def test_scalar_of_the_device_does_not_go_with_the_host() -> None:
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        torch.ones(2) * torch.tensor(3.0, device=DEVICE)


def test_indices_may_lie_on_the_host() -> None:
    x = torch.arange(4.0, device=DEVICE)
    assert x[torch.tensor([3, 1])].tolist() == [3, 1]
    x[torch.tensor([True, False, False, False])] = 5.0
    assert x.tolist() == [5, 1, 2, 3]
    x[torch.tensor([1])] = torch.tensor([7.0], device=DEVICE)
    assert x.tolist() == [5, 7, 2, 3]


def test_host_is_not_indexed_by_the_device() -> None:
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        torch.arange(4.0)[torch.tensor([1, 2], device=DEVICE)]


def test_values_put_at_indices_may_not_lie_on_the_host() -> None:
    x = torch.arange(4.0, device=DEVICE)
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        x[torch.tensor([1, 2], device=DEVICE)] = torch.tensor([7.0, 8.0])


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_copy_of_any_layout_returns_with_its_values_and_strides(
    kind: str, dtype: torch.dtype
) -> None:
    host = laid_out(kind, (2, 3, 4), dtype)
    there = host.to(DEVICE)
    assert_same(there, host.clone())
    back = there.cpu()
    assert torch.equal(back, host)
    assert back.stride() == there.stride()
    target = torch.empty(4, 3, 2, dtype=dtype, device=DEVICE).permute(2, 1, 0)
    assert torch.equal(target.copy_(host).cpu(), host)
    assert torch.equal(torch.empty(4, 3, 2, dtype=dtype).permute(2, 1, 0).copy_(there), host)
    assert torch.equal(host.to(DEVICE, torch.float32).cpu(), host.to(torch.float32))


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 4)
        self.head = torch.nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.norm = torch.nn.BatchNorm1d(4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.embedding(ids)))


def test_parameters_keep_their_identity_and_their_tie_when_moved() -> None:
    module = Tied()
    before = dict(module.named_parameters(remove_duplicate=False))
    optimizer = torch.optim.AdamW(module.parameters())
    for device in (DEVICE, "cpu", DEVICE):
        module.to(device)
        after = dict(module.named_parameters(remove_duplicate=False))
        assert all(after[name] is parameter for name, parameter in before.items())
        assert module.head.weight is module.embedding.weight
        assert {one.device.type for one in module.state_dict().values()} == {device}
    module(torch.arange(5, device=DEVICE)).sum().backward()
    optimizer.step()
    assert module.head.weight.grad is not None
    module.cpu()
    assert module.head.weight.grad.device.type == "cpu"


def test_copied_module_is_tied_and_apart_from_the_first() -> None:
    module = Tied().to(DEVICE)
    twin = copy.deepcopy(module)
    assert twin.head.weight is twin.embedding.weight
    assert twin.head.weight.device.type == DEVICE
    with torch.no_grad():
        twin.head.weight.zero_()
    assert module.head.weight.abs().sum().item() > 0


def test_state_moves_between_host_and_device_by_state_dict() -> None:
    host, there = Tied(), Tied().to(DEVICE)
    there.load_state_dict(host.state_dict())
    assert_same(there.state_dict(), host.state_dict())
    host.load_state_dict(Tied().to(DEVICE).state_dict())
    assert host.head.weight.device.type == "cpu"


def test_saved_tensors_load_where_they_were_and_where_they_are_mapped() -> None:
    saved = {"base": torch.arange(6.0, device=DEVICE)}
    saved["view"] = saved["base"][2:]
    file = io.BytesIO()
    torch.save(saved, file)
    for location, expected in (
        (None, DEVICE),
        ("cpu", "cpu"),
        (DEVICE, DEVICE),
        (f"{DEVICE}:0", DEVICE),
    ):
        file.seek(0)
        loaded = torch.load(file, map_location=location)
        assert {one.device.type for one in loaded.values()} == {expected}
        assert loaded["view"].tolist() == [2, 3, 4, 5]
        assert (
            loaded["view"].untyped_storage().data_ptr()
            == loaded["base"].untyped_storage().data_ptr()
        )


def test_optimizer_state_saved_on_the_device_loads_there() -> None:
    module = Tied().to(DEVICE)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.arange(5, device=DEVICE)).sum().backward()
    optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    again = torch.optim.AdamW(module.parameters())
    again.load_state_dict(torch.load(file, map_location="cpu"))
    found = again.state[module.head.weight]["exp_avg"]
    assert found.device.type == DEVICE
    assert_same(found, optimizer.state[module.head.weight]["exp_avg"].cpu())


def test_device_context_and_default_device_make_tensors_there() -> None:
    with torch.device(DEVICE):
        assert torch.ones(2).device.type == DEVICE
        assert torch.nn.Linear(2, 2).weight.device.type == DEVICE
    assert torch.ones(2).device.type == "cpu"
    with torch.device("meta"):
        module = torch.nn.Linear(2, 2)
    assert module.to_empty(device=DEVICE).weight.device.type == DEVICE


def test_names_of_the_device_are_known_to_torch() -> None:
    assert torch.ones(1).to(DEVICE).is_emulated
    assert torch.accelerator.current_accelerator() == torch.device(DEVICE)
    assert torch.get_device_module(DEVICE).device_count() == 2
    assert torch.device(DEVICE, 1) != torch.device(DEVICE, 0)
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.get_device_module(DEVICE).set_device(5)
