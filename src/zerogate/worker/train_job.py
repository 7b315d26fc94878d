"""A training launch on one rank, from the job to the record."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch.distributed as dist

from zerogate.protocol.job import Job
from zerogate.worker import memory
from zerogate.worker.setup import Prepared, prepare
from zerogate.worker.step_profile import trace_step

if TYPE_CHECKING:
    from zerogate.worker.record_builder import RecordBuilder


def train_cell(job: Job, record: RecordBuilder, started: float) -> None:
    """Train and evaluate ``job``'s cell; add measurements to ``record`` as they become known.

    ``started`` is the ``perf_counter`` at which this rank began.
    """
    cell = prepare(job, record, started)
    memory.reset_peak_host_bytes()

    record.phase = "train"
    meter = cell.phases.meter

    def after_step(steps: int) -> None:
        record.beat(steps)
        if steps == 1 and cell.budget_bytes is not None:
            meter.keep_budget()

    cell.trainer.after_step = after_step
    series = cell.trainer.train(cell.train_loader, cell.train_set, job.steps)
    record.add(
        **{name: tuple(values) for name, values in dataclasses.asdict(series).items()},
        memory=cell.phases.phases,
    )
    if job.steps is None:
        _evaluate(cell, record)
    if dist.is_initialized():
        dist.barrier()


def _evaluate(cell: Prepared, record: RecordBuilder) -> None:
    record.phase = "eval"
    quality, eval_seconds = cell.trainer.evaluate(cell.eval_loader)
    recipe = cell.workload.recipe
    global_micro_batch = recipe.micro_batch_size * cell.accelerator.num_processes
    missed, repeated = cell.train_set.miscounts(
        padding=-len(cell.train_set) % global_micro_batch, device=cell.accelerator.device
    )
    record.add(
        quality=quality,
        eval_seconds=eval_seconds,
        eval_samples_miscounted=abs(cell.trainer.gathered_samples - len(cell.eval_set)),
        samples_missed=missed,
        samples_repeated=repeated,
        memory=cell.phases.phases,
        peak_host_bytes=memory.peak_host_bytes(),
        canary_seconds=(cell.canary_seconds + memory.canary_seconds()) / 2,
    )
    record.phase = "trace"
    # Last, because it trains for one more step.
    record.add(traced=trace_step(cell, iter(cell.train_loader)))
