"""The heat map of a sweep."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from zerogate.releases.evaluation import Change
from zerogate.releases.heatmap import _shade, _words, draw
from zerogate.releases.sweep import Row

CELL = "gpt2xl_wikitext2-zero2-w2-cpu"


def change(was: float | None, now: float | None, *, worse: bool = True) -> Change:
    return Change(CELL, "live_bytes", was, now, None, worse)


ROWS = [
    Row(release="0.1"),
    Row(release="0.2", invalid="pip: no wheel"),
    Row(release="0.3", failures={CELL: "crash: rank 1: boom"}),
    Row(release="0.4", since_first=[change(1000, 1001)]),
]


def test_heatmap_is_written_as_png(tmp_path: Path) -> None:
    path = tmp_path / "sweep.png"
    assert draw("ds", [CELL], ROWS, path) == ""
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("rows", [ROWS[:1], ROWS[1:2]])
def test_heatmap_of_single_release_is_drawn(tmp_path: Path, rows: list[Row]) -> None:
    assert draw("ds", [CELL], rows, tmp_path / "sweep.png") == ""


def test_heatmap_without_matplotlib_names_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install 'pytest-zerogate[picture]'" in draw("ds", [CELL], ROWS, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_heatmap_with_broken_matplotlib_settings_gives_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise ValueError("Key backend: 'junk'")

    monkeypatch.setitem(sys.modules, "matplotlib.figure", Broken("matplotlib.figure"))
    assert draw("ds", [CELL], ROWS, tmp_path / "x") == "no picture: matplotlib: Key backend: 'junk'"


def test_heatmap_shade_grows_with_change_and_shows_one_byte() -> None:
    byte, tenth, double = (_shade(change(10**9, 10**9 + one)) for one in (1, 10**8, 10**9))
    assert 0.1 < byte < tenth < double == 1.0
    assert _shade(change(10**9, 2 * 10**9, worse=False)) == -double
    assert _shade(change(0, 5)) == _shade(change(None, 5)) == 1.0


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (change(1000, 1001), "<1%"),
        (change(1000, 560), "-44%"),
        (change(9, 29), "+222%"),
        (change(1, 30), "+29x"),
        (change(0, 5), "new"),
        (change(1.0, None), "none"),
        (change(1.0, float("nan")), "none"),
        (change(float("inf"), 1.0), "new"),
    ],
)
def test_heatmap_label_abbreviates_change(one: Change, words: str) -> None:
    assert _words(one) == words
