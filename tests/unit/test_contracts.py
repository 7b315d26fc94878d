"""What importing zerogate costs, and that files are read as data. Who may import whom is in
pyproject.toml (import-linter).
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import zerogate

SOURCE = Path(zerogate.__file__).parent
STACK = {"torch", "transformers", "accelerate", "deepspeed", "datasets", "evaluate"}
SLOW = {"pydantic", "rich"}


def loaded(*modules: str) -> set[str]:
    """Return the top-level packages that importing ``modules`` loads in a fresh interpreter."""
    script = (
        f"import {', '.join(modules)}, sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(result.stdout.split())


def below(room: str) -> list[str]:
    """Return the modules of a room by their full names."""
    return [
        ".".join(("zerogate", *path.relative_to(SOURCE).with_suffix("").parts))
        for path in sorted((SOURCE / room).glob("*.py"))
        if path.stem != "__init__"
    ]


def test_public_names_are_imported_lazily() -> None:
    assert not loaded("zerogate") & (STACK | SLOW)
    assert all(getattr(zerogate, name) is not None for name in zerogate.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Workloads'"):
        zerogate.Workloads  # noqa: B018


def test_collection_imports_neither_stack_nor_slow_packages() -> None:
    found = loaded("zerogate.plugin.hooks")
    assert "pytest" in found
    assert not found & (STACK | SLOW)


def test_controller_modules_import_neither_stack_nor_slow_packages() -> None:
    modules = [*below("session"), *below("report"), *below("launch"), *below("environment")]
    assert not loaded(*modules) & (STACK | SLOW)


@pytest.mark.parametrize("module", [*below("protocol"), "zerogate.worker.main"])
def test_module_shared_with_ranks_loads_standard_library_only(module: str) -> None:
    assert not loaded(module) & (STACK | SLOW | {"pytest", "yaml", "psutil"})


UNSAFE = ("pickle", "dill", "marshal", "shelve", "cloudpickle")
"""Modules that turn a file into code."""

UNSAFE_CALLS = {"yaml.load", "torch.load", "numpy.load", "np.load", "eval", "exec"}


@pytest.mark.parametrize(
    "path",
    sorted(SOURCE.rglob("*.py")),
    ids=lambda path: path.relative_to(SOURCE).with_suffix("").as_posix(),
)
def test_source_never_reads_files_as_code(path: Path) -> None:
    tree = ast.parse(path.read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not imported & set(UNSAFE)
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not calls & UNSAFE_CALLS
