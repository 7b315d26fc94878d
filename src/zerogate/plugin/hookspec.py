"""Hooks that other plugins may implement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from zerogate.protocol.job import Job
    from zerogate.protocol.record import RankRecord


@pytest.hookspec(firstresult=True)
def pytest_zerogate_launch(job: Job, folder: Path) -> tuple[RankRecord, ...] | None:
    """Run ``job`` in another way, for example on a scheduler, and return its records by rank.

    ``folder`` holds ``job.json``. Ranks that are started with ``python -m zerogate.worker.main FOLDER``
    and torchrun's environment write their records there, and ``read_record`` of
    ``zerogate.launch.record_file`` reads them. Raise a ``LaunchFailedError`` if there is no
    measurement. Return None to leave the job to the launcher.
    """
