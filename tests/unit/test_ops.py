"""Compiled ops are loaded from where they were built, past DeepSpeed's own look-up."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from zerogate.rank import ops


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands for DeepSpeed's builder of an op; its name is that of some compiled module."""
    found = SimpleNamespace(name="_psutil_linux", _loaded_ops={}, asked=0)

    def load(*, verbose: bool) -> None:
        found.asked += 1

    found.load = load
    monkeypatch.setattr(ops, "op_builder", lambda name: found)
    return found


def test_a_built_op_is_loaded_without_asking_deepspeed(
    builder: SimpleNamespace, tmp_path: Path
) -> None:
    folder = tmp_path / builder.name
    folder.mkdir()
    [library] = Path(psutil.__file__).parent.glob("_psutil_linux*.so")
    shutil.copy(library, folder / f"{builder.name}.so")
    ops.load("some_op", tmp_path)
    assert builder._loaded_ops[builder.name].__file__ == str(folder / f"{builder.name}.so")
    assert builder.asked == 0


def test_an_op_that_was_not_built_is_deepspeeds_business(
    builder: SimpleNamespace, tmp_path: Path
) -> None:
    ops.load("some_op", tmp_path)
    assert builder.asked == 1
