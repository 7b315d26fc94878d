"""The script that a bisection writes, run as it is for upstream."""

from __future__ import annotations

import ast
import math
from pathlib import Path

from zerogate.config.options import Options
from zerogate.protocol.cell import parse_cell
from zerogate.releases.reproduction import reproduce

ROOT = Path(__file__).parents[2]


def test_reproduction_script_trains_model_with_repeatable_losses(tmp_path: Path) -> None:
    options = Options(root=ROOT, report_folder=tmp_path)
    cell = parse_cell("gpt2xl_wikitext2-ddp-w1")
    found = reproduce(
        (), (), cell, "perplexity", title="", options=options, progress=lambda _: None
    )
    assert found is not None
    assert found.good.value is not None, found.good.line
    assert found.good == found.bad
    assert not found.differs
    losses = found.good.value
    assert losses[-1] < losses[0], "it learns"
    guessing = math.log(5000)
    assert guessing < losses[0] < guessing + 1, "a fresh model knows less than who guesses a token"
    assert "zerogate" not in ast.dump(ast.parse((tmp_path / "reproduce.py").read_text()))
