"""What a probe times of the steps it takes, where loss scaling skips some."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from zerogate.worker import probe_job as probe
from zerogate.worker.probe_job import MOST_STEPS, NotMeasurableError


class Laps:
    """A clock whose n-th lap takes n seconds."""

    def __init__(self, device: torch.device) -> None:
        self.marks = 0

    def mark(self) -> None:
        self.marks += 1

    def laps(self) -> list[float]:
        return [float(number) for number in range(1, self.marks)]


def steps(monkeypatch: pytest.MonkeyPatch, skipped: Iterator[bool]) -> list[float]:
    """Seconds that a size gives of a model whose scaler skips those steps."""
    monkeypatch.setattr(probe, "Clock", Laps)
    trainer = SimpleNamespace(model=torch.nn.Linear(1, 1), skipped=False)

    def step(micro_batches: Any) -> None:
        trainer.skipped = next(skipped)

    trainer.step = step
    cell: Any = SimpleNamespace(
        trainer=trainer,
        accelerator=SimpleNamespace(device=torch.device("cpu")),
        workload=SimpleNamespace(recipe=SimpleNamespace(gradient_accumulation_steps=1)),
        phases=SimpleNamespace(collect_garbage=lambda: None),
    )
    peaks: Any = SimpleNamespace(after_forward=lambda: None, after_first_step=lambda: None)
    return probe._train(cell, [], 1, peaks)


def test_probe_without_skipped_steps_times_three_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps(monkeypatch, iter([False] * 3)) == [1.0, 2.0, 3.0]


def test_probe_does_not_time_skipped_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the optimizer they are short: sixteen of them would be the median."""
    skipped = [True] * 16 + [False, True, False, False]
    assert steps(monkeypatch, iter(skipped)) == [17.0, 19.0, 20.0]


def test_probe_with_too_many_skipped_steps_is_not_measurable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    skipped = [False, False] + [True] * (MOST_STEPS - 2)
    with pytest.raises(NotMeasurableError, match="loss scaling skipped 22 of 24"):
        steps(monkeypatch, iter(skipped))
