"""Shared memory of ranks that have ended is removed, and nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from zerogate.launch import process_tree


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(process_tree, "SHARED_MEMORY", tmp_path)
    return tmp_path


def test_remove_shared_memory_removes_only_files_of_ranks(folder: Path) -> None:
    ours = [folder / "__KMP_REGISTERED_LIB_31_0", folder / "torch_31_1804_0"]
    others = [folder / name for name in ("torch_3_1", "torch_310_1", "nccl-abc", "a_database_31")]
    for path in ours + others:
        path.write_bytes(bytes(64))
    assert process_tree.remove_shared_memory({31, 32}) == ours
    assert sorted(folder.iterdir()) == sorted(others)


def test_remove_shared_memory_without_folder_removes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process_tree, "SHARED_MEMORY", tmp_path / "absent")
    assert process_tree.remove_shared_memory({31}) == []
