"""A pytest plugin that plants, in a cell's ranks, the fault that its strategy's name ends in.

``configs/zero2__local_clipping.yaml`` is ``zero2`` with ``local_clipping`` planted, and
``zero2__all_that_spare_it`` has all the faults at once that must change nothing there.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.faults import (  # noqa: F401 (they register)
    configuration,
    memory,
    offload,
    speed,
    wrong_numbers,
)
from tests.faults.fault import SEPARATOR, planted_under
from zerogate.protocol.atomic_write import write_json
from zerogate.protocol.job import Job, job_path


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What the suite claims of a strategy, it claims of the strategy with a fault in it."""
    planted = ",".join(metafunc.config.getoption("zerogate_strategy")).split(",")
    marks = metafunc.definition.own_markers
    for index, mark in enumerate(marks):
        if mark.name == "strategies":
            under = [name for name in planted if name.partition(SEPARATOR)[0] in mark.args]
            marks[index] = pytest.mark.strategies(*mark.args, *under).mark


@pytest.hookimpl(tryfirst=True)
def pytest_zerogate_launch(job: Job, folder: Path) -> None:
    strategy, _, name = job.cell.strategy.partition(SEPARATOR)
    if name:
        faults = planted_under(job.cell.workload, strategy, name)
        write_json(job_path(folder), dataclasses.replace(job, preload=faults))
