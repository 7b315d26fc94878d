"""Random numbers: the device draws the CPU's numbers from generators of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from comparing import DEVICE, assert_same

DRAWS: dict[str, Callable[[str], torch.Tensor]] = {
    "rand": lambda device: torch.rand(5, device=device),
    "randn": lambda device: torch.randn(33, device=device),
    "randint": lambda device: torch.randint(0, 9, (5,), device=device),
    "randperm": lambda device: torch.randperm(9, device=device),
    "rand_like": lambda device: torch.rand_like(torch.ones(5, device=device)),
    "normal_": lambda device: torch.empty(3, device=device).normal_(),
    "uniform_": lambda device: torch.empty(5, device=device).uniform_(),
    "bernoulli_": lambda device: torch.empty(5, device=device).bernoulli_(0.5),
    "bernoulli": lambda device: torch.bernoulli(torch.full((5,), 0.5, device=device)),
    "multinomial": lambda device: torch.multinomial(torch.ones(9, device=device), 4),
    "dropout": lambda device: torch.nn.functional.dropout(torch.ones(9, device=device)),
    "native_dropout": lambda device: torch.native_dropout(torch.ones(9, device=device), 0.5, True)[
        0
    ],
    "exponential_": lambda device: torch.empty(5, device=device).exponential_(),
    "init": lambda device: torch.nn.Linear(3, 4, device=device).weight.detach(),
}


@pytest.mark.parametrize("name", DRAWS)
def test_drawing_on_one_side_leaves_the_others_generator_alone(name: str) -> None:
    draw, module = DRAWS[name], torch.get_device_module(DEVICE)
    host, device = torch.get_rng_state(), module.get_rng_state()
    draw(DEVICE)
    assert torch.equal(torch.get_rng_state(), host)
    assert not torch.equal(module.get_rng_state(), device)
    device = module.get_rng_state()
    draw("cpu")
    assert torch.equal(module.get_rng_state(), device)
    assert not torch.equal(torch.get_rng_state(), host)


@pytest.mark.parametrize("name", DRAWS)
def test_same_seed_draws_the_cpus_numbers_again_and_again(name: str) -> None:
    for _ in range(2):
        torch.manual_seed(5)
        for _ in range(3):
            assert_same(DRAWS[name](DEVICE), DRAWS[name]("cpu"))


@pytest.mark.parametrize("name", DRAWS)
def test_state_that_is_put_back_draws_the_same_numbers(name: str) -> None:
    module = torch.get_device_module(DEVICE)
    state = module.get_rng_state()
    first = DRAWS[name](DEVICE)
    module.set_rng_state(state)
    assert torch.equal(first, DRAWS[name](DEVICE))
    with torch.random.fork_rng(devices=[0], device_type=DEVICE):
        DRAWS[name](DEVICE)
        inside = module.get_rng_state()
    assert not torch.equal(module.get_rng_state(), inside)


def test_generator_of_the_device_is_apart_from_the_default_one() -> None:
    generator = torch.Generator(device=DEVICE).manual_seed(3)
    other = torch.Generator().manual_seed(3)
    default = torch.get_device_module(DEVICE).get_rng_state()
    assert generator.device.type == DEVICE
    for _ in range(2):
        assert_same(
            torch.randn(5, device=DEVICE, generator=generator), torch.randn(5, generator=other)
        )
    assert torch.equal(torch.get_device_module(DEVICE).get_rng_state(), default)
    state = generator.get_state()
    first = torch.rand(3, device=DEVICE, generator=generator)
    generator.set_state(state)
    assert torch.equal(first, torch.rand(3, device=DEVICE, generator=generator))
    assert generator.initial_seed() == 3


def test_generator_of_the_other_side_is_refused() -> None:
    with pytest.raises(RuntimeError, match="device type for generator"):
        torch.rand(3, device=DEVICE, generator=torch.Generator())
    with pytest.raises(RuntimeError, match=r"same device|device type for generator"):
        torch.rand(3, generator=torch.Generator(device=DEVICE))


def test_checkpointed_dropout_is_drawn_again_in_the_backward_pass() -> None:
    from torch.utils.checkpoint import checkpoint

    x = torch.ones(100, device=DEVICE, requires_grad=True)
    y = checkpoint(torch.nn.functional.dropout, x, use_reentrant=False)
    torch.rand(3, device=DEVICE)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
