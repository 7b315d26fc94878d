"""What an attempt measured is taken again, by whoever asks for the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from evaluations import CELL

from zerogate.config.options import Options
from zerogate.protocol.cell import Cell, parse_cell
from zerogate.releases import evaluate
from zerogate.releases.evaluate import evaluate_packages
from zerogate.releases.evaluation import Evaluation


def test_kept_evaluation_is_reused_and_measured_again_if_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged or foreign file is measured over, and cells of another command are left out."""
    measured: list[str] = []

    def measure(known: Evaluation, session: Any, cell: Cell) -> Evaluation:
        measured.append(cell.id)
        return replace(known, values=known.values | {cell.id: {"live_bytes": 7}})

    @contextmanager
    def laid_over(*_: Any) -> Iterator[Any]:
        yield SimpleNamespace(setup=SimpleNamespace(fingerprint=lambda: {"torch": "2.13"}))

    monkeypatch.setattr(evaluate, "_with", measure)
    monkeypatch.setattr(evaluate, "laid_over", laid_over)
    options = Options(root=tmp_path, report_folder=tmp_path)
    cell = parse_cell(CELL)
    path = tmp_path / "ds-1" / "evaluation.json"

    def tried() -> Evaluation:
        return evaluate_packages(["ds==1"], [cell], options, lambda step: None)

    assert tried().values == {CELL: {"live_bytes": 7}}
    assert tried() == tried()
    assert measured == [CELL]
    good = json.loads(path.read_text())
    other = CELL.replace("zero2", "zero3")
    path.write_text(json.dumps({**good, "values": {CELL: {"live_bytes": 7}, other: {}}}))
    assert set(tried().values) == {CELL}
    for values in ({CELL: {"nothing": 7}}, {"no cell": {}}, {CELL: {"live_bytes": [7.0]}}):
        path.write_text(json.dumps({**good, "values": values}))
        assert tried().values == {CELL: {"live_bytes": 7}}
    assert len(measured) == 4
