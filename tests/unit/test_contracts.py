"""The wall between controller and ranks: who may import what."""

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
    """The top-level packages that importing ``modules`` loads in a fresh interpreter."""
    script = (
        f"import {', '.join(modules)}, sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(result.stdout.split())


def imported(path: Path) -> set[str]:
    """The modules that ``path`` imports anywhere, in functions too, but not for types only."""
    names: set[str] = set()

    class Visitor(ast.NodeVisitor):
        def visit_Import(self, node: ast.Import) -> None:
            names.update(alias.name for alias in node.names)

        def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
            names.add(node.module or "")

        def visit_If(self, node: ast.If) -> None:
            if ast.unparse(node.test) != "TYPE_CHECKING":
                self.generic_visit(node)

    Visitor().visit(ast.parse(path.read_text()))
    return names


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def test_collection_imports_neither_the_stack_nor_what_is_slow() -> None:
    found = loaded("zerogate.plugin")
    assert "pytest" in found
    assert not found & (STACK | SLOW)


def test_a_session_can_be_opened_without_the_stack() -> None:
    modules = ("session", "recording", "report.terminal", "launch.forkserver", "launch.command")
    assert not loaded(*(f"zerogate.{name}" for name in modules)) & (STACK | SLOW)


@pytest.mark.parametrize(
    "module",
    [
        "zerogate.rank.worker",
        "zerogate.rank.scale",
        "zerogate.heartbeat",
        "zerogate.record",
        "zerogate.schedule",
        "zerogate.search",
        "zerogate.secret",
    ],
)
def test_what_ranks_share_loads_the_standard_library_only(module: str) -> None:
    assert not loaded(module) & (STACK | SLOW | {"pytest", "yaml", "psutil"})


@pytest.mark.parametrize("path", sorted((SOURCE / "rank").glob("*.py")), ids=lambda path: path.stem)
def test_ranks_import_nothing_of_the_controllers(path: Path) -> None:
    assert not packages(path) & (SLOW | {"pytest"})
    ours = {name for name in imported(path) if name.startswith("zerogate.")}
    assert {name for name in ours if not name.startswith("zerogate.rank")} <= {
        "zerogate.atomic",
        "zerogate.cell",
        "zerogate.heartbeat",
        "zerogate.record",
        "zerogate.schedule",
        "zerogate.search",
        "zerogate.secret",
        "zerogate.stack",
    }


@pytest.mark.parametrize(
    "path",
    sorted(path for path in SOURCE.rglob("*.py") if path.parent.name != "rank"),
    ids=lambda path: path.relative_to(SOURCE).with_suffix("").as_posix(),
)
def test_the_controller_never_imports_the_stack(path: Path) -> None:
    assert not packages(path) & STACK
    assert not {name for name in imported(path) if name.startswith("zerogate.rank")}


@pytest.mark.parametrize(
    "path",
    sorted(
        path
        for path in SOURCE.rglob("*.py")
        if path.stem
        not in (
            "plugin",
            "hookspec",
            "options",
            "selection",
            "gate",
            "progress",
            "stash",
            "fixtures",
        )
    ),
    ids=lambda path: path.relative_to(SOURCE).with_suffix("").as_posix(),
)
def test_only_the_plugin_knows_pytest(path: Path) -> None:
    assert "pytest" not in packages(path)


def test_judging_has_no_clock_no_files_and_no_processes() -> None:
    assert not packages(SOURCE / "verdict.py") & {
        "datetime", "json", "os", "pathlib", "random", "subprocess", "time",
    }  # fmt: skip


UNSAFE = ("pickle", "dill", "marshal", "shelve", "cloudpickle")
"""What turns a file into code."""

UNSAFE_CALLS = {"yaml.load", "torch.load", "numpy.load", "np.load", "eval", "exec"}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.stem)
def test_files_are_read_as_data(path: Path) -> None:
    assert not packages(path) & set(UNSAFE)
    calls = {
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    }
    assert not calls & UNSAFE_CALLS
