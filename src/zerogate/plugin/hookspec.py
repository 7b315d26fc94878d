"""Hooks that other plugins may implement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from zerogate.protocol.record import Job, RankRecord


@pytest.hookspec(firstresult=True)
def pytest_zerogate_launch(job: Job, folder: Path) -> tuple[RankRecord, ...] | None:
    """Run ``job`` in your own way, on a scheduler say, and return its records, by rank.

    ``folder`` holds ``job.json``; ranks started with ``python -m zerogate.worker.main FOLDER`` and
    torchrun's environment write their records there (``zerogate.launch.result.read_record``).
    Raise a ``LaunchFailedError`` when there is no measurement. None leaves it to the launcher.
    """
