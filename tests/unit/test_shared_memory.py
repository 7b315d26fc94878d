"""Shared memory that nobody uses any more is removed, and only that."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from zerogate.launch import shared_memory


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)
    return tmp_path


def test_what_ranks_left_is_removed(folder: Path) -> None:
    (folder / "torch_1_2").write_bytes(bytes(64))
    before = shared_memory.segments()
    left = [folder / "nccl-abc", folder / "torch_3_4"]
    for path in left:
        path.write_bytes(bytes(64))
    assert shared_memory.remove_left(before) == left
    assert [path.name for path in folder.iterdir()] == ["torch_1_2"]


def test_what_others_made_or_use_stays(folder: Path) -> None:
    before = shared_memory.segments()
    (folder / "a_database").write_bytes(bytes(64))
    used = folder / "torch_5_6"
    used.write_bytes(bytes(64))
    with used.open("r+b") as file, mmap.mmap(file.fileno(), 64):
        assert shared_memory.remove_left(before) == []
    assert used.exists()


def test_a_machine_without_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path / "absent")
    assert shared_memory.remove_left(shared_memory.segments()) == []
