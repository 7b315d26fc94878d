"""Autocast on the device picks the dtypes that it picks on a card; gradients are scaled as there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from comparing import DEVICE

LOW = (torch.bfloat16, torch.float16)

IN_LOW_PRECISION: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "linear": lambda x: F.linear(x, x, x[0]),
    "matmul": lambda x: x @ x,
    "addmm": lambda x: torch.addmm(x, x, x),
    "bmm": lambda x: torch.bmm(x[None], x[None]),
    "einsum": lambda x: torch.einsum("ij,kj->ik", x, x),
    "conv1d": lambda x: F.conv1d(x[None], x[:, :, None]),
    "attention": lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None]),
}
IN_FP32: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "layer_norm": lambda x: F.layer_norm(x, (4,)),
    "cross_entropy": lambda x: F.cross_entropy(
        x, torch.zeros(4, dtype=torch.long, device=x.device)
    ),
    "mse_loss": lambda x: F.mse_loss(x, x),
    "sum": torch.sum,
    "pow": lambda x: x.pow(2),
    "exp": torch.exp,
    "log": torch.log,
    "norm": torch.norm,
}
AS_GIVEN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "add": lambda x: x + x,
    "dropout": F.dropout,
}


@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("name", IN_LOW_PRECISION)
def test_products_run_in_low_precision(low: torch.dtype, name: str) -> None:
    x = torch.ones(4, 4, device=DEVICE)
    with torch.autocast(DEVICE, low):
        assert IN_LOW_PRECISION[name](x).dtype == low
    assert IN_LOW_PRECISION[name](x).dtype == torch.float32


@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("name", IN_FP32)
def test_sums_and_losses_run_in_fp32(low: torch.dtype, name: str) -> None:
    with torch.autocast(DEVICE, low):
        assert IN_FP32[name](torch.ones(4, 4, device=DEVICE, dtype=low)).dtype == torch.float32


@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("name", AS_GIVEN)
def test_other_operators_keep_the_dtype_that_they_are_given(low: torch.dtype, name: str) -> None:
    with torch.autocast(DEVICE, low):
        for dtype in (torch.float32, low):
            assert AS_GIVEN[name](torch.ones(4, 4, device=DEVICE, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("low", LOW)
def test_mixed_dtypes_are_promoted_to_the_widest(low: torch.dtype) -> None:
    wide, narrow = torch.ones(2, 2, device=DEVICE), torch.ones(2, 2, device=DEVICE, dtype=low)
    with torch.autocast(DEVICE, low):
        for made in (torch.cat([wide, narrow]), torch.stack([narrow, wide])):
            assert made.dtype == torch.float32


def test_autocast_of_the_device_leaves_the_host_alone_and_ends() -> None:
    x, host = torch.ones(2, 2, device=DEVICE), torch.ones(2, 2)
    with torch.autocast(DEVICE, torch.bfloat16):
        assert (host @ host).dtype == torch.float32
        with torch.autocast(DEVICE, enabled=False):
            assert (x @ x).dtype == torch.float32
    assert not torch.is_autocast_enabled(DEVICE)
    with torch.autocast("cpu", torch.bfloat16):
        assert (x @ x).dtype == torch.float32


def test_binary_cross_entropy_is_refused_as_on_a_card() -> None:
    x = torch.full((2,), 0.5, device=DEVICE)
    with torch.autocast(DEVICE), pytest.raises(RuntimeError, match="unsafe to autocast"):
        F.binary_cross_entropy(x, x)


def test_gradients_of_weights_under_autocast_are_fp32() -> None:
    module = torch.nn.Linear(4, 4, device=DEVICE)
    with torch.autocast(DEVICE, torch.bfloat16):
        loss = module(torch.ones(2, 4, device=DEVICE)).square().mean()
    loss.backward()
    assert module.weight.grad.dtype == torch.float32


def scaled_step(module: torch.nn.Linear, x: torch.Tensor) -> torch.amp.GradScaler:
    scaler = torch.amp.GradScaler(device=x.device.type, init_scale=1024.0)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    scaler.scale(module(x).sum()).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    return scaler


def test_scaled_step_is_the_step_without_scaling() -> None:
    module = torch.nn.Linear(4, 4, device=DEVICE)
    expected = module.weight.detach() - 0.1 * 2
    scaler = scaled_step(module, torch.ones(2, 4, device=DEVICE))
    assert torch.equal(module.weight, expected)
    assert scaler.get_scale() == 1024


def test_scaled_step_with_inf_is_skipped_and_halves_the_scale() -> None:
    module = torch.nn.Linear(4, 4, device=DEVICE)
    before = module.weight.detach().clone()
    scaler = scaled_step(module, torch.full((2, 4), torch.inf, device=DEVICE))
    assert torch.equal(module.weight, before)
    assert scaler.get_scale() == 512
