"""A pytest plugin that plants, in a cell's ranks, the fault that its strategy's name ends in.

``configs/zero2__local_clipping.yaml`` is ``zero2`` with ``local_clipping`` planted.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.faults import configuration, memory, speed, wrong_numbers  # noqa: F401 (they register)
from tests.faults.fault import FAULTS, SEPARATOR
from zerogate.record import Job, job_path, write_json


@pytest.hookimpl(tryfirst=True)
def pytest_zerogate_launch(job: Job, folder: Path) -> None:
    _, _, name = job.cell.strategy.partition(SEPARATOR)
    if name:
        planted = dataclasses.replace(job, preload=(FAULTS[name].preload,))
        write_json(job_path(folder), planted)
