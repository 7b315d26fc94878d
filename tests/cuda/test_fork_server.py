"""Ranks forked for a card measure what torchrun's measure, and leave nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device here; .ci/card runs this on one", allow_module_level=True)

from zerogate.config.options import Options  # noqa: E402
from zerogate.launch import process_tree  # noqa: E402
from zerogate.metrics.device_use import LaunchRecords  # noqa: E402
from zerogate.metrics.measurement import Measurement, measure  # noqa: E402
from zerogate.metrics.table import metric_named  # noqa: E402
from zerogate.protocol.cell import parse_cell  # noqa: E402
from zerogate.session.factory import open_session  # noqa: E402
from zerogate.session.runner import JobChanges  # noqa: E402
from zerogate.session.session import Session  # noqa: E402
from zerogate.verdicts.baselines import MetricBaseline  # noqa: E402
from zerogate.verdicts.verdict import compare  # noqa: E402

ROOT = Path(__file__).parents[2]
CELL = parse_cell("deberta_mrpc-ddp-w1-gpu")
STEPS = 4


@pytest.fixture
def told() -> list[str]:
    """The session's lines of progress."""
    return []


@pytest.fixture
def sessions(tmp_path: Path, told: list[str]) -> Iterator[dict[str, Session]]:
    """A session for each of two launchers, by the launcher's name."""
    found = {}
    for launcher in ("forkserver", "torchrun"):
        folder = tmp_path / launcher
        folder.mkdir()
        found[launcher] = open_session(
            Options(root=ROOT, report_folder=folder, launcher=launcher),
            launch_hook=lambda job, folder: None,
            progress=lambda update: told.append(update.text),
            save=lambda session: None,
        )
    yield found
    for session in found.values():
        session.close()


def launched(session: Session, name: str) -> Measurement:
    records: LaunchRecords = session.runner.launch_variant(CELL, name, JobChanges(steps=STEPS))
    seconds = max(record.setup_seconds for record in records.ranks)
    # For whoever reads the log of the card (pytest -s).
    print(f"{CELL.id}: set-up of {name} by {session.options.launcher}: {seconds:.1f} s")
    return measure(CELL, [records])


def test_ranks_forked_for_card_measure_what_torchrun_ranks_measure(
    sessions: dict[str, Session], told: list[str]
) -> None:
    before = process_tree.children()
    first = launched(sessions["forkserver"], "first")
    second = launched(sessions["forkserver"], "second")
    assert not [text for text in told if "torchrun" in text], "it fell back; the line says why"
    other = launched(sessions["torchrun"], "first")
    for session in sessions.values():
        session.close()
    assert process_tree.children() <= before
    for name in other.names:
        metric = metric_named(name)
        # Counts and allocated bytes. Losses and scores of so few steps say little.
        if metric.scope == "hardware" or metric.series or not metric.unit:
            continue
        found = other.scalar(name)
        expected = MetricBaseline(value=found, spread=0.0, launches=(found,))
        for forked in (first, second):
            verdict = compare(CELL, metric, forked.scalar(name), expected)
            assert verdict.status == "ok", verdict
