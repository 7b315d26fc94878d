from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from strategy_files import Write


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
