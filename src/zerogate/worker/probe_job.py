"""A probe launch on one rank: it tries batch sizes until one runs out of memory.

Each size trains for three optimizer steps that are not skipped. Optimizer states exist from the second
step on, and the third starts from what the second left. fp16's loss scaling skips some steps at first,
the same ones on all ranks. The samples are the longest of the data set, repeated if there are too few.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from zerogate.protocol.batch_search import Tried, next_size
from zerogate.protocol.record import BatchKind, Job, Probed
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

    Raises NotMeasurableError if device memory cannot be counted.
    """
    request = job.probe
    assert request is not None
    cell = prepare(job, record, started)
    meter = cell.phases.meter
    if meter is None or cell.budget_bytes is None:
        raise NotMeasurableError(
            "batch size: device memory cannot be counted here; expected the counting allocator, which "
            "needs a C++ compiler; install g++"
        )
    record.phase = "probe"
    # Sorted once, here, because steps are timed.
    samples = sorted(
        cell.train_set.samples if request.kind == "train" else cell.eval_set,
        key=_length,
        reverse=True,
    )
    sizes = list(request.sizes)
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

    def after_forward(self) -> None:
        self.forward = max(self.forward, self._meter.live_bytes() - self._phases.floor_bytes)


def _try(
    cell: Prepared, meter: MemoryMeter, kind: BatchKind, samples: Sequence[Any], size: int
) -> Probed:
    retries = meter.retries()
    peaks = Peaks(cell.phases, meter)
    seconds = (_train if kind == "train" else _evaluate)(cell, samples, size, peaks)
    limit = meter.limit_bytes() - cell.phases.floor_bytes
    # They decide the next size, and every rank must choose the same one.
    worst = torch.tensor([peaks.whole, peaks.forward, -limit], device=cell.accelerator.device)
    if dist.is_initialized():
        dist.all_reduce(worst, op=dist.ReduceOp.MAX)
    whole, forward, most = worst.tolist()
    return Probed(
        size=size,
        peak_allocated_bytes=whole,
        forward_bytes=forward,
        limit_bytes=-most,
        step_seconds=tuple(seconds),
        allocator_retries=meter.retries() - retries,
    )


def _train(cell: Prepared, samples: Sequence[Any], size: int, peaks: Peaks) -> list[float]:
    """Return the seconds of each step that loss scaling did not skip: a skipped one is shorter.

    Raises NotMeasurableError if nearly all steps are skipped, since optimizer states would never exist.
    """
    cell.trainer.model.train()
    cell.trainer.after_forward = peaks.after_forward
    clock = Clock(cell.accelerator.device)
    clock.mark()
    taken: list[bool] = []
    while sum(taken) < STEPS:
        if len(taken) == MOST_STEPS:
            raise NotMeasurableError(
                f"batch size: loss scaling skipped {len(taken) - sum(taken)} of {len(taken)} "
                f"optimizer steps; expected {STEPS} that are not skipped; look for a loss that is not "
                "finite, or train in bf16"
            )
        micro_batches = (
            _batch(cell, samples, size)
            for _ in range(cell.workload.recipe.gradient_accumulation_steps)
        )
        cell.trainer.step(micro_batches)
        clock.mark()
        cell.phases.collect_garbage()
        taken.append(not cell.trainer.skipped)
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
