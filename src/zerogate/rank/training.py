"""A training launch on one rank, from the job to the findings."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch.distributed as dist

from zerogate.rank import meters
from zerogate.rank.prepared import prepare
from zerogate.record import Job

if TYPE_CHECKING:
    from zerogate.rank.findings import Findings


def train_cell(job: Job, findings: Findings, started: float) -> None:
    """Train and evaluate ``job``'s cell; what is measured goes to ``findings`` as it is known.

    ``started`` is the ``perf_counter`` at which this rank began.
    """
    cell = prepare(job, findings, started)
    meters.reset_peak_host_bytes()

    findings.phase = "train"
    progress = cell.trainer.train(cell.train_loader)
    findings.add(
        **{name: tuple(values) for name, values in dataclasses.asdict(progress).items()},
        memory=cell.phases.phases,
    )
    findings.phase = "eval"
    quality, eval_seconds = cell.trainer.evaluate(cell.eval_loader)
    findings.add(
        quality=quality,
        eval_seconds=eval_seconds,
        eval_samples=len(cell.eval_set),
        memory=cell.phases.phases,
        peak_host_bytes=meters.peak_host_bytes(),
        canary_seconds=(cell.canary_seconds + meters.canary_seconds()) / 2,
    )
    if dist.is_initialized():
        dist.barrier()
