"""A pytest plugin that plants, in a cell's ranks, the fault that its strategy's name ends in.

``configs/zero2__local_clipping.yaml`` is ``zero2`` with ``local_clipping`` planted, and
``zero2__all_that_spare_it`` has all the faults at once that must change nothing there.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.faults import configuration, memory, speed, wrong_numbers  # noqa: F401 (they register)
from tests.faults.fault import SEPARATOR, planted_under
from zerogate.protocol.atomic_write import write_json
from zerogate.protocol.record import Job, job_path


@pytest.hookimpl(tryfirst=True)
def pytest_zerogate_launch(job: Job, folder: Path) -> None:
    strategy, _, name = job.cell.strategy.partition(SEPARATOR)
    if name:
        faults = planted_under(job.cell.workload, strategy, name)
        write_json(job_path(folder), dataclasses.replace(job, preload=faults))
