"""A probe launch on one rank: it tries batch sizes until one runs out of memory.

Each size trains for three optimizer steps that are not skipped. Optimizer states exist from the second
step on, and the third starts from what the second left. fp16's loss scaling skips some steps at first,
the same ones on all ranks. The samples are the longest of the data set, repeated if there are too few.
On a card a step of size 1 comes first: it shows most of what libraries hold outside torch's allocator,
which the budget covers too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from zerogate.protocol.batch_search import Tried, next_size
from zerogate.protocol.job import BatchKind, Job
from zerogate.protocol.record import Probed
from zerogate.worker.memory import Clock, MemoryMeter, MemoryPhases
from zerogate.worker.setup import Prepared, prepare
from zerogate.worker.workload import Batch

if TYPE_CHECKING:
    from zerogate.worker.record_builder import RecordBuilder

STEPS = 3
MOST_STEPS = 24
"""Largest number of steps to try, enough to halve a loss scale of 2^16 down to 1."""


class NotMeasurableError(RuntimeError):
    """A batch size cannot be measured here; the message says why."""


def probe_cell(job: Job, record: RecordBuilder, started: float) -> None:
    """Try the sizes that ``job`` requests. Running out of memory ends the rank.

    Raises NotMeasurableError if loss scaling skips nearly all steps.
    """
    request = job.probe
    assert request is not None
    cell = prepare(job, record, started)
    meter = cell.phases.meter
    record.phase = "probe"
    # Sorted once, here, because steps are timed.
    samples = sorted(
        cell.train_set.samples if request.kind == "train" else cell.eval_set,
        key=_length,
        reverse=True,
    )
    sizes = list(request.sizes)
    record.add(probing=sizes[0])
    if meter.grows_outside:
        _warm_up(cell, meter, request.kind, samples)
    tried: list[Probed] = []
    while sizes:
        size = sizes.pop(0)
        record.add(probing=size)
        tried.append(_try(cell, meter, request.kind, samples, size))
        record.add(probed=tuple(tried))
        record.beat(len(tried))
        if not sizes and request.stop is not None:
            following = next_size(
                [
                    Tried(one.size, one.peak_allocated_bytes, one.forward_bytes, one.limit_bytes)
                    for one in tried
                ],
                request.stop,
            )
            sizes += [following] if following is not None else []
    if dist.is_initialized():
        dist.barrier()


class Peaks:
    """The peak of a size, and what is held after its forward pass, in bytes."""

    def __init__(self, phases: MemoryPhases, meter: MemoryMeter) -> None:
        self._phases = phases
        self._meter = meter
        self.forward = 0
        phases.collect_garbage(keep=True)
        meter.release_cache()
        meter.reset_peak()

    @property
    def whole(self) -> int:
        return self._meter.peak_bytes() - self._phases.floor_bytes

    def after_first_step(self) -> None:
        """Keep the budget: kernels of this size are loaded, and optimizer states exist."""
        self._meter.keep_budget()

    def after_forward(self) -> None:
        self.forward = max(self.forward, self._meter.live_bytes() - self._phases.floor_bytes)


def _warm_up(cell: Prepared, meter: MemoryMeter, kind: BatchKind, samples: Sequence[Any]) -> None:
    """Take one step at size 1 before the sizes to try, and keep what it loaded within the budget.

    Most of what a process holds outside the allocator comes with its first step. A rank that runs out
    of memory here cannot take the first size either.
    """
    peaks = Peaks(cell.phases, meter)
    if kind == "train":
        _train(cell, samples, 1, peaks, steps=1)
    else:
        _evaluate(cell, samples, 1, peaks)
        meter.keep_budget()


def _try(
    cell: Prepared, meter: MemoryMeter, kind: BatchKind, samples: Sequence[Any], size: int
) -> Probed:
    """Return what ``size`` needed. Collective.

    Raises torch.OutOfMemoryError if the size needs more than there is, or than the budget allows.
    """
    retries = meter.retries()
    peaks = Peaks(cell.phases, meter)
    seconds = (_train if kind == "train" else _evaluate)(cell, samples, size, peaks)
    meter.keep_budget()
    limit = meter.limit_bytes() - cell.phases.floor_bytes
    own = [peaks.whole, peaks.forward, meter.process_peak_bytes(), -limit]
    # They decide the next size, and every rank must choose the same one.
    worst = torch.tensor(own, device=cell.accelerator.device)
    if dist.is_initialized():
        dist.all_reduce(worst, op=dist.ReduceOp.MAX)
    whole, forward, process, least = worst.tolist()
    assert cell.budget_bytes is not None
    if process > cell.budget_bytes:
        raise torch.OutOfMemoryError(
            f"batch size {size}: the process holds {process} bytes, its budget is {cell.budget_bytes}"
        )
    return Probed(
        size=size,
        peak_allocated_bytes=whole,
        forward_bytes=forward,
        limit_bytes=-least,
        step_seconds=tuple(seconds),
        allocator_retries=meter.retries() - retries,
        process_bytes=process,
    )


def _train(
    cell: Prepared, samples: Sequence[Any], size: int, peaks: Peaks, steps: int = STEPS
) -> list[float]:
    """Return the seconds of each step that loss scaling did not skip: a skipped one is shorter.

    The first of them is cold, and includes the time to keep the budget.

    Raises NotMeasurableError if nearly all steps are skipped, since optimizer states would never exist.
    """
    cell.trainer.model.train()
    cell.trainer.after_forward = peaks.after_forward
    clock = Clock(cell.accelerator.device)
    clock.mark()
    taken: list[bool] = []
    while sum(taken) < steps:
        if len(taken) == MOST_STEPS:
            raise NotMeasurableError(
                f"batch size: loss scaling skipped {len(taken) - sum(taken)} of {len(taken)} "
                f"optimizer steps; expected {steps} that are not skipped; look for a loss that is not "
                "finite, or train in bf16"
            )
        micro_batches = (
            _batch(cell, samples, size)
            for _ in range(cell.workload.recipe.gradient_accumulation_steps)
        )
        cell.trainer.step(micro_batches)
        taken.append(not cell.trainer.skipped)
        if taken[-1] and sum(taken) == 1:
            peaks.after_first_step()
        clock.mark()
        cell.phases.collect_garbage()
    return [seconds for seconds, counts in zip(clock.laps(), taken, strict=True) if counts]


def _evaluate(cell: Prepared, samples: Sequence[Any], size: int, peaks: Peaks) -> list[float]:
    _, seconds = cell.trainer.evaluate([_batch(cell, samples, size)])
    peaks.forward = peaks.whole  # Generation holds the most in its last step.
    return [seconds]


def _batch(cell: Prepared, samples: Sequence[Any], size: int) -> Batch:
    """Return the first ``size`` samples as a micro-batch, repeated if there are fewer."""
    batch = cell.workload.collate([samples[index % len(samples)] for index in range(size)])
    return {name: values.to(cell.accelerator.device) for name, values in batch.items()}


def _length(sample: Any) -> int:
    """Return the number of tokens of a sample, over all of its sequences."""
    sequences = sample.values() if isinstance(sample, dict) else [sample]
    return sum(len(sequence) for sequence in sequences if hasattr(sequence, "__len__"))
