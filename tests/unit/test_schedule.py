"""The learning rate's course: DeepSpeed's, for every strategy."""

from __future__ import annotations

import warnings

import pytest


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    # What the stack warns about when it is imported is not what is tested.
    with warnings.catch_warnings(action="ignore"):
        import zerogate.worker.model  # noqa: F401


COURSES = [
    pytest.param(warmup, total, id=f"{warmup} of {total}")
    for warmup, total in [(1, 10), (2, 10), (3, 10), (10, 100), (5, 6), (10, 11), (10, 10), (20, 8)]
]


def of_deepspeed(warmup_steps: int, total_steps: int) -> list[float]:
    """The rate that each step trains with; the engine steps its scheduler after every step."""
    import torch
    from deepspeed.runtime.lr_schedules import WarmupDecayLR

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = WarmupDecayLR(
        optimizer,
        total_num_steps=total_steps,
        warmup_max_lr=1.0,
        warmup_num_steps=warmup_steps,
        warmup_type="linear",
    )
    rates = []
    for _ in range(total_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step()
    return rates


def ours(warmup_steps: int, total_steps: int) -> list[float]:
    from zerogate.protocol.schedule import schedule

    return [
        schedule(step, warmup_steps=warmup_steps, total_steps=total_steps)
        for step in range(total_steps)
    ]


@pytest.mark.parametrize(("warmup_steps", "total_steps"), COURSES)
def test_schedule_matches_deepspeed_at_every_step(warmup_steps: int, total_steps: int) -> None:
    assert ours(warmup_steps, total_steps) == pytest.approx(
        of_deepspeed(warmup_steps, total_steps), abs=1e-12
    )


@pytest.mark.parametrize("warmup_steps", [0, 1, 2, 10])
def test_schedule_rises_to_full_rate_and_falls_near_zero(warmup_steps: int) -> None:
    rates = ours(warmup_steps, 100)
    assert rates[:2] == [0.0, 0.0]
    assert max(rates) == 1.0
    peak = rates.index(1.0)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert 0 < rates[-1] < 0.05


def test_schedule_after_last_step_is_zero() -> None:
    from zerogate.protocol.schedule import schedule

    assert [schedule(step, warmup_steps=2, total_steps=10) for step in (11, 12, 50)] == [0, 0, 0]
