"""The one training loop: it trains and times every workload under every strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from zerogate.protocol.record import Recipe
from zerogate.worker.memory import Clock, MemoryPhases, wall_clock
from zerogate.worker.sample_audit import CountedSamples, counted_gathering
from zerogate.worker.workload import Batch, Workload


@dataclass
class StepSeries:
    """Measurements of this rank's training so far; they grow by optimizer step and by epoch."""

    loss: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    step_skipped: list[bool] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)
    step_samples: list[int] = field(default_factory=list)
    step_live_bytes: list[int] = field(default_factory=list)
    step_host_bytes: list[int] = field(default_factory=list)
    train_seconds: list[float] = field(default_factory=list)


class Trainer:
    """One rank's training run: the prepared objects and the measurements taken with them."""

    def __init__(
        self,
        accelerator: Accelerator,
        workload: Workload,
        model: torch.nn.Module,
        optimizer: Any,
        scheduler: Any,
        phases: MemoryPhases,
    ) -> None:
        self.accelerator = accelerator
        self.workload = workload
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.phases = phases
        self.series = StepSeries()
        self.gathered_samples = 0
        self.skipped = False
        self.after_forward: Callable[[], None] = lambda: None
        self.after_step: Callable[[int], None] = lambda steps: None

    @property
    def recipe(self) -> Recipe:
        return self.workload.recipe

    def train(self, loader: Any, samples: CountedSamples, steps: int | None = None) -> StepSeries:
        """Train for the recipe's epochs, or for ``steps``; the first step is a phase of its own.

        The first step creates the optimizer states, so its peak differs from the steady ones.
        """
        self.model.train()
        with ExitStack() as steady:
            for epoch in range(self.recipe.epochs):
                loader.set_epoch(epoch)
                samples.begin_epoch()
                batches = iter(loader)
                self.accelerator.wait_for_everyone()
                start = wall_clock(self.accelerator.device)
                if epoch == 0:
                    with self.phases.phase("first_step"):
                        self._steps(batches, samples, limit=1)
                    steady.enter_context(self.phases.phase("steady"))
                self._steps(batches, samples, limit=steps and steps - len(self.series.loss))
                self.series.train_seconds.append(wall_clock(self.accelerator.device) - start)
        return self.series

    def _steps(
        self, batches: Iterator[Batch], drawn: CountedSamples, limit: int | None = None
    ) -> None:
        """Take optimizer steps until the epoch's data is used up or ``limit`` is reached."""
        clock = Clock(self.accelerator.device)
        losses: list[Any] = []
        norms: list[Any] = []
        clock.mark()
        while limit is None or len(norms) < limit:
            learning_rate = float(self.optimizer.param_groups[0]["lr"])
            loss, norm, samples = self.step(map(drawn.hold, batches))
            if not samples:
                break
            self.series.step_skipped.append(self.skipped)
            # Read at once if not on a card: that waits for nothing, and a tensor kept per step would
            # be a leak.
            at_once = self.accelerator.device.type != "cuda"
            losses.append(float(loss) if at_once else loss)
            norms.append(_as_float(norm) if at_once else norm)
            self.series.learning_rate.append(learning_rate)
            self.series.step_samples.append(samples)
            clock.mark()
            self.phases.collect_garbage()
            held = drawn.held_bytes(self.accelerator.device)
            self.series.step_live_bytes.append(self.phases.live_bytes - held)
            if (on_host := self.phases.host_bytes) is not None:
                self.series.step_host_bytes.append(on_host - drawn.held_bytes(torch.device("cpu")))
            self.after_step(len(self.series.step_live_bytes))
        self.series.step_seconds.extend(clock.laps())
        # Read only here: reading a value makes the host wait for the device.
        self.series.loss.extend(float(loss) for loss in losses)
        self.series.gradient_norm.extend(map(_as_float, norms))

    def step(self, batches: Iterator[Batch]) -> tuple[torch.Tensor, Any, int]:
        """Take one optimizer step; return its mean loss, gradient norm and number of samples.

        The loss is a scalar tensor, the mean over micro-batches. The norm is the one before clipping;
        it is 0 if loss scaling found an overflow: then the step is ``skipped`` and changes nothing.
        The number of samples is 0 when the data is used up.

        Micro-batches are drawn one at a time: Accelerate learns from the last one drawn whether the
        epoch ends, and then steps at once, even in the middle of an accumulation.
        """
        total = torch.zeros((), device=self.accelerator.device)
        self.skipped = False
        norm: Any = None
        count = samples = 0
        for batch in batches:
            with self.accelerator.accumulate(self.model):
                loss = self.workload.loss(self.model, batch)
                self.after_forward()
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    norm = self._gradient_norm()
                # DeepSpeed's engine has stepped in backward; then this does nothing.
                self.optimizer.step()
                if self.accelerator.sync_gradients:
                    self.skipped = bool(self.accelerator.optimizer_step_was_skipped)
                self.scheduler.step()
                self.optimizer.zero_grad()
            total += loss.detach().float()
            count += 1
            samples += _samples(batch)
            if self.accelerator.sync_gradients:
                break
        return total / max(1, count), 0.0 if self.skipped else norm, samples

    def _gradient_norm(self) -> Any:
        """Return the global gradient norm; clip the gradients if the engine (DeepSpeed) does not."""
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            engine: Any = self.model
            return engine.get_global_grad_norm()
        return self.accelerator.clip_grad_norm_(
            self.model.parameters(), self.recipe.max_gradient_norm
        )

    def evaluate(self, loader: Any) -> tuple[dict[str, float], float]:
        """Return the quality on the evaluation set and the seconds that this took. Collective.

        Sets ``gathered_samples``: how many samples the workload gathered from all ranks to score.
        """
        self.model.eval()
        self.accelerator.wait_for_everyone()
        start = wall_clock(self.accelerator.device)
        with (
            torch.no_grad(),
            self.phases.phase("eval"),
            counted_gathering(self.accelerator) as gathered,
        ):
            quality = self.workload.evaluate(self.model, loader, self.accelerator)
        seconds = wall_clock(self.accelerator.device) - start
        self.gathered_samples = sum(gathered)
        return quality, seconds


def _samples(batch: Batch) -> int:
    return int(next(iter(batch.values())).shape[0])


def _as_float(norm: Any) -> float:
    """Return the norm that DeepSpeed (float), DDP (tensor) or FSDP2 (DTensor) gives as a float."""
    if hasattr(norm, "full_tensor"):
        norm = norm.full_tensor()
    return float(norm)
