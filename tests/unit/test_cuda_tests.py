"""The tests that need a device (``tests/cuda``) import names that exist: no other run would tell."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[1] / "cuda").glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_names_that_device_tests_import_exist(path: Path) -> None:
    missing = [
        f"{node.module}.{one.name}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zerogate")
        for one in node.names
        if not hasattr(importlib.import_module(node.module or ""), one.name)
    ]
    assert missing == []


def test_device_tests_skip_only_without_device() -> None:
    """A skip for any other reason would hide that a card shows nothing."""
    for path in FILES:
        skips = [line for line in path.read_text().splitlines() if "pytest.skip(" in line]
        assert all("no CUDA device here" in line for line in skips), path
