"""Operators that the workloads and optimizers call do on the device what they do on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from comparing import assert_conforms
from drawn import ALL, BOOLS, FLOATS, INTEGERS, LAYOUTS, NUMBERS, positions, tensors
from hypothesis import given
from hypothesis import strategies as st

OF_FLOATS: dict[str, Callable[..., Any]] = {
    "log": lambda x: x.abs().log(),
    "sqrt": lambda x: x.abs().sqrt(),
    "rsqrt": lambda x: x.abs().rsqrt(),
    "reciprocal": torch.reciprocal,
    "exp": torch.exp,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "relu": F.relu,
    "ceil": torch.ceil,
    "mean": torch.mean,
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "vector_norm": torch.linalg.vector_norm,
    "isfinite": lambda x: torch.isfinite(x).all(),
    "to_bf16": lambda x: x.to(torch.bfloat16),
    "to_fp32": lambda x: x.float(),
    "to_int64": lambda x: x.long(),
    "std": lambda x: x.std(correction=0),
    "dropout": lambda x: F.dropout(x, 0.5),
    "bernoulli": lambda x: torch.empty_like(x).bernoulli_(0.3),
    "normal_": lambda x: torch.empty_like(x).normal_(0, 0.02),
    "uniform_": lambda x: torch.empty_like(x).uniform_(-1, 1),
    "rand_like": torch.rand_like,
    "randn_like": torch.randn_like,
}
OF_NUMBERS: dict[str, Callable[..., Any]] = {
    "neg": torch.neg,
    "abs": torch.abs,
    "sign": torch.sign,
    "square": torch.square,
    "pow": lambda x: x.pow(3),
    "add_scalar": lambda x: x + 2,
    "rsub": lambda x: 1 - x,
    "mul_scalar": lambda x: x * 2,
    "clamp": lambda x: x.clamp(-1, 1),
    "clamp_min": lambda x: x.clamp_min(0),
    "remainder": lambda x: x.remainder(2),
    "floor_divide": lambda x: torch.floor_divide(x.detach(), 2),
    "equal_scalar": lambda x: x == 1,
    "less_scalar": lambda x: x < 1,
    "sum": torch.sum,
    "cumsum": lambda x: x.reshape(-1).cumsum(0),
    "max": torch.max,
    "argmax": torch.argmax,
    "zero_": lambda x: x.detach().zero_(),
    "fill_": lambda x: x.detach().fill_(2),
    "mul_": lambda x: x.detach().clone().mul_(3),
    "masked_fill": lambda x: x.masked_fill(x > 0, 5),
    "where": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    "scalar_where": lambda x: torch.where(x > 0, x, 0),
}
OF_ALL: dict[str, Callable[..., Any]] = {
    "clone": torch.clone,
    "contiguous": torch.Tensor.contiguous,
    "detach": torch.Tensor.detach,
    "zeros_like": torch.zeros_like,
    "ones_like": torch.ones_like,
    "full_like": lambda x: torch.full_like(x, 1),
    "new_zeros": lambda x: x.new_zeros(3, 2),
    "new_ones": lambda x: x.new_ones(2),
    "new_tensor": lambda x: x.new_tensor([1, 0]),
    "view_flat": lambda x: x.reshape(-1),
    "flatten": torch.flatten,
    "unsqueeze": lambda x: x.unsqueeze(-1),
    "squeeze": torch.squeeze,
    "repeat": lambda x: x.repeat(2, *(1 for _ in x.shape)),
    "stack": lambda x: torch.stack([x, x]),
    "permute": lambda x: x.permute(tuple(reversed(range(x.dim())))),
    "nonzero": torch.nonzero,
    "not": torch.logical_not,
    "and": lambda x: torch.logical_and(x, x.bool()),
    "any": torch.any,
    "all": torch.all,
    "to_bool": lambda x: x.bool(),
    "item": lambda x: x.reshape(-1)[0].item(),
    "tolist": torch.Tensor.tolist,
    "equal": lambda x: torch.equal(x, x.clone()),
}
OF_MATRICES: dict[str, Callable[..., Any]] = {
    "transpose": lambda x: x.transpose(0, 1),
    "slice": lambda x: x[:, 1:],
    "step": lambda x: x[::2],
    "select": lambda x: x[:, 0],
    "split": lambda x: x.split(1, dim=0),
    "chunk": lambda x: x.chunk(2, dim=1),
    "unbind": lambda x: x.unbind(0),
    "expand": lambda x: x.unsqueeze(0).expand(3, *x.shape),
    "sum_of_rows": lambda x: x.sum(0),
    "sum_kept": lambda x: x.sum(-1, keepdim=True),
    "cat": lambda x: torch.cat([x, x], dim=1),
    "tril": lambda x: x.tril(),
    "triu": lambda x: x.triu(1),
    "flip": lambda x: x.flip(0),
    "pad": lambda x: F.pad(x, (1, 2)),
    "index_mask": lambda x: x[x > 0],
    "index_select": lambda x: x.index_select(0, torch.zeros(2, dtype=torch.long, device=x.device)),
    "host_index": lambda x: x[torch.zeros(2, dtype=torch.long)],
    "topk": lambda x: x.topk(1),
    "sort": lambda x: x.sort(dim=-1, stable=True),
    "argsort": lambda x: x.argsort(dim=-1, stable=True),
    "min_of_rows": lambda x: x.min(1),
    "max_of_rows": lambda x: x.max(1),
}
OF_TWO: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "add_alpha": lambda x, y: torch.add(x, y, alpha=2),
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "greater": lambda x, y: x > y,
    "less_or_equal": lambda x, y: x <= y,
    "not_equal": lambda x, y: x != y,
    "maximum": torch.maximum,
    "where": lambda x, y: torch.where(x > y, x, y),
    "isin": lambda x, y: torch.isin(x.long().contiguous(), y.long().contiguous()),
    "broadcast": lambda x, y: x.unsqueeze(0) + y.unsqueeze(1),
    "copy_": lambda x, y: torch.empty_like(x).copy_(y),
}


@pytest.mark.parametrize("name", OF_FLOATS)
@given(x=tensors(FLOATS))
def test_operator_of_floats_conforms(name: str, x: torch.Tensor) -> None:
    assert_conforms(OF_FLOATS[name], [x])


@pytest.mark.parametrize("name", OF_NUMBERS)
@given(x=tensors(NUMBERS))
def test_operator_of_numbers_conforms(name: str, x: torch.Tensor) -> None:
    assert_conforms(OF_NUMBERS[name], [x])


@pytest.mark.parametrize("name", OF_ALL)
@given(x=tensors(ALL))
def test_operator_of_all_dtypes_conforms(name: str, x: torch.Tensor) -> None:
    assert_conforms(OF_ALL[name], [x])


@pytest.mark.parametrize("name", OF_MATRICES)
@given(x=tensors(NUMBERS, least=2))
def test_operator_of_matrices_conforms(name: str, x: torch.Tensor) -> None:
    assert_conforms(OF_MATRICES[name], [x])


@pytest.mark.parametrize("name", OF_TWO)
@given(x=tensors(NUMBERS, (3, 4)), y=tensors(NUMBERS, (3, 4)))
def test_operator_of_two_tensors_conforms(name: str, x: torch.Tensor, y: torch.Tensor) -> None:
    assert_conforms(OF_TWO[name], [x, y])


@given(x=tensors(BOOLS + INTEGERS, (3, 4)), y=tensors(BOOLS, (3, 4)))
def test_bitwise_operators_conform(x: torch.Tensor, y: torch.Tensor) -> None:
    assert_conforms(lambda x, y: [x & y, x | y, ~x, x ^ y, x & 1], [x, y])


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data())
def test_matrix_products_conform(dtype: torch.dtype, data: st.DataObject) -> None:
    def draw(*shape: int) -> torch.Tensor:
        return data.draw(tensors((dtype,), shape))

    assert_conforms(torch.mm, [draw(3, 4), draw(4, 2)])
    assert_conforms(torch.addmm, [draw(2), draw(3, 4), draw(4, 2)])
    assert_conforms(torch.bmm, [draw(2, 3, 4), draw(2, 4, 2)])
    assert_conforms(torch.baddbmm, [draw(2, 3, 2), draw(2, 3, 4), draw(2, 4, 2)])
    assert_conforms(torch.matmul, [draw(2, 3, 4), draw(4, 2)])
    assert_conforms(F.linear, [draw(2, 3, 4), draw(5, 4), draw(5)])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("masked", [False, True])
@given(data=st.data())
def test_attention_conforms(dtype: torch.dtype, masked: bool, data: st.DataObject) -> None:
    query, key, value = (data.draw(tensors((dtype,), (2, 2, 3, 4))) for _ in range(3))
    mask = [torch.ones(3, 3, dtype=torch.bool).tril()] if masked else []
    assert_conforms(F.scaled_dot_product_attention, [query, key, value, *mask])
    assert_conforms(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.5), [query, key, value]
    )


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data())
def test_layers_conform(dtype: torch.dtype, data: st.DataObject) -> None:
    def draw(*shape: int) -> torch.Tensor:
        return data.draw(tensors((dtype,), shape))

    kind = data.draw(st.sampled_from(LAYOUTS))
    assert_conforms(lambda x, w, b: F.layer_norm(x, (4,), w, b), [draw(2, 3, 4), draw(4), draw(4)])
    assert_conforms(
        lambda x, w, b: F.conv1d(x, w, b, padding=1), [draw(2, 4, 5), draw(3, 4, 3), draw(3)]
    )
    assert_conforms(F.embedding, [positions((2, 3), 6, kind), draw(6, 4)])
    assert_conforms(
        lambda i, w: F.embedding(i, w, padding_idx=0), [positions((2, 3), 6), draw(6, 4)]
    )
    labels = positions((3,), 5, kind)
    labels[0] = -100
    assert_conforms(F.cross_entropy, [draw(3, 5), labels])
    assert_conforms(lambda x, y: F.cross_entropy(x, y, label_smoothing=0.1), [draw(3, 5), labels])
    assert_conforms(F.mse_loss, [draw(3, 4), draw(3, 4)])


@pytest.mark.parametrize("dtype", NUMBERS)
@given(data=st.data())
def test_indexing_conforms(dtype: torch.dtype, data: st.DataObject) -> None:
    x = data.draw(tensors((dtype,), (3, 4)))
    index = positions((3, 4), 3, data.draw(st.sampled_from(LAYOUTS)))
    values = data.draw(tensors((dtype,), (3, 4)))
    assert_conforms(lambda x, i: x.gather(1, i), [x, index])
    assert_conforms(lambda x, i, y: x.scatter_add(1, i, y), [x, index, values])
    assert_conforms(lambda x, i, y: x.scatter(1, i, y), [x, index, values])
    assert_conforms(lambda x, i: x[i[0, :2], 1], [x, index])
    assert_conforms(lambda x, y: x.index_put((y > 0,), x.new_ones(())), [x, values])
    rows = torch.tensor([2, 0])
    assert_conforms(lambda x, i, y: x.index_copy(0, i, y[:2]), [x, rows, values])
    assert_conforms(lambda x, i, y: x.index_add(0, i, y[:2]), [x, rows, values])


def test_creation_conforms() -> None:
    for make in (
        lambda device: torch.arange(7, device=device),
        lambda device: torch.arange(1, 2, 0.25, device=device),
        lambda device: torch.full((2, 3), 1.5, device=device),
        lambda device: torch.eye(3, device=device),
        lambda device: torch.linspace(0, 1, 5, device=device),
        lambda device: torch.tensor([[1, 2], [3, 4]], device=device),
        lambda device: torch.tril_indices(3, 3, device=device),
        lambda device: torch.randperm(9, device=device),
        lambda device: torch.randint(0, 9, (4,), device=device),
        lambda device: torch.multinomial(torch.ones(5, device=device), 3),
    ):
        assert_conforms(lambda x, make=make: make(x.device), [torch.zeros(1)])
