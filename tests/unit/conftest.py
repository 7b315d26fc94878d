from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from strategy_files import Write

from zerogate.releases import package_index

# A gate that draws anew each time alarms at random, on changes that are not to blame; to look for
# what nobody thought of: pytest tests/unit --hypothesis-profile=look
settings.register_profile("gate", max_examples=150, deadline=None, derandomize=True)
settings.register_profile("look", max_examples=5_000, deadline=None, database=None)
settings.load_profile("gate")

PRETRAINED = ["0.19.1", "0.19.0", "0.18.10", "0.18.2", "0.18.2rc1", "0.18.0"]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a strategy file, and the DeepSpeed file beside it when given (text or JSON-able)."""

    def write(strategy: str, deepspeed: Any = None) -> Path:
        path = tmp_path / "configs" / "own.yaml"
        (path.parent / "deepspeed").mkdir(parents=True)
        path.write_text(strategy)
        if deepspeed is not None:
            text = deepspeed if isinstance(deepspeed, str) else json.dumps(deepspeed)
            (path.parent / "deepspeed" / "own.json").write_text(text)
        return path

    return write


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """An index that tells of ``ds``; what it answers can be changed."""
    versions = ", ".join(PRETRAINED)
    told = SimpleNamespace(stdout=f"ds (0.19.1)\nAvailable versions: {versions}\n", stderr="")
    monkeypatch.setattr(package_index, "run_helper", lambda *_, **__: told)
    return told
