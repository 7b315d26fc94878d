"""``zerogate sweep`` and ``zerogate bisect``, from the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from evaluations import CELL, evaluation

from zerogate.__main__ import main
from zerogate.cli import releases as command
from zerogate.config.strategy_file import ConfigError
from zerogate.protocol.cell import Cell, parse_cell
from zerogate.releases import issue_report as report
from zerogate.releases.evaluation import Evaluation


@pytest.mark.parametrize("tier", ["cpu", "gpu"])
def test_a_cells_id_is_read_back(tier: Any) -> None:
    cell = Cell(workload="gpt2xl_wikitext2", strategy="zero2", world_size=2, tier=tier)
    assert parse_cell(cell.id) == cell


@pytest.mark.parametrize("text", ["", "gpt2xl_wikitext2", "a-b-w0", "a-b-w2-tpu", "a-b-2"])
def test_what_is_no_cells_id(text: str) -> None:
    with pytest.raises(ValueError, match="is no cell"):
        parse_cell(text)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pip: SimpleNamespace) -> Path:
    """A project's folder, in which releases since 0.18.10 have another norm, and 0.18.2 cannot run."""
    for file in ("workloads/gpt2xl_wikitext2.py", "configs/zero2.yaml"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)

    def attempt(packages: Sequence[str], *_: Any) -> Evaluation:
        release = packages[-1].partition("==")[2]
        if release == "0.18.2":
            return evaluation(*packages, values={}, failures={CELL: "crash: boom"})
        return evaluation(*packages, norm=1.5 if release == "0.18.0" else 1.0)

    monkeypatch.setattr(command, "evaluate_packages", attempt)
    monkeypatch.setattr(command, "evaluate_afresh", attempt)
    monkeypatch.setattr(report, "reproduce", lambda *_, **__: None)
    return tmp_path


BISECT = ["bisect", "ds", "--cell", "gpt2xl_wikitext2-zero2-w2", "--metric", "gradient_norm"]


def test_a_bisection_from_the_command_line(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*BISECT, "--good", "0.18.0", "--bad", "0.19.1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ds 0.18.0: good: gradient_norm as in 0.18.0"
    assert "ds 0.18.2: skipped: crash: boom" in lines
    again = [line for line in lines if line.startswith("ds 0.18.10, measured again")]
    assert again == ["ds 0.18.10, measured again: bad: gradient_norm at step 1 is 1, in 0.18.0 1.5"]
    assert lines[-3] == (
        "ds 0.18.10 is the first bad one; 0.18.0 is good; "
        "it may be one of 0.18.2, which cannot run here"
    )


def test_the_other_way_round_it_is_the_one_that_mended_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*BISECT, "--good", "0.19.1", "--bad", "0.18.0"]) == 0
    found = capsys.readouterr().out.splitlines()[-3]
    assert found.startswith("ds 0.18.10 mended it; 0.18.0 is the last that has it")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--good", "0.19.0", "--bad", "0.19.1"],
            "0.19.1 was to be bad and measures what 0.19.0 does",
        ),
        (["--good", "0.18.0", "--bad", "0.18.0"], "--bad: 0.18.0 is --good too"),
        (["--good", "0.18.0", "--bad", "0.18.1"], "0.18.1: no release of ds"),
        (["--good", "old", "--bad", "0.18.1"], "--good: 'old' is no version"),
    ],
)
def test_a_bisection_that_has_nothing_to_find(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([*BISECT, *arguments]) == 4
    error = capsys.readouterr().err
    assert error.startswith("ERROR: ")
    assert message in error


def test_a_sweep_from_the_command_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "ds", "--from", "0.18.0", "--cells", CELL]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == [
        "ds 0.18.0: green", "ds 0.18.2: crash", "ds 0.18.10: changed",
    ]  # fmt: skip
    folder = project / "zerogate-report" / "sweep-ds"
    assert json.loads((folder / "sweep.json").read_text())["rows"][2]["against"] == "0.18.0"
    assert (folder / "sweep.md").read_text().startswith("| ds | outcome | what |")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("zero2", "--cells: 'zero2' is no cell"),
        ("gpt2xl_wikitext2-zero9-w2", "no configs/zero9.yaml here"),
        (",", "--cells: none given"),
    ],
)
def test_cells_that_are_not_there(
    project: Path, capsys: pytest.CaptureFixture[str], cells: str, message: str
) -> None:
    assert main(["sweep", "ds", "--from", "0.18.0", "--cells", cells]) == 4
    assert message in capsys.readouterr().err


def test_this_machines_troubles_are_no_releases_fault(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise ConfigError("/cache: Not a directory; overlays are kept there")

    monkeypatch.setattr(command, "evaluate_packages", refused)
    assert main(["sweep", "ds", "--from", "0.18.0", "--cells", CELL]) == 4
    assert capsys.readouterr().err.startswith("ERROR: /cache: Not a directory")


def test_a_report_folder_that_is_a_file(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "zerogate-report").touch()
    assert main(["sweep", "ds", "--from", "0.18.0", "--cells", CELL]) == 4
    error = capsys.readouterr().err
    assert error.startswith("ERROR: ")
    assert error.count("\n") == 1


def test_a_cell_named_twice_is_one(project: Path) -> None:
    assert main(["sweep", "ds", "--from", "0.18.0", "--cells", f"{CELL},{CELL}"]) == 0
    found = json.loads((project / "zerogate-report" / "sweep-ds" / "sweep.json").read_text())
    assert found["cells"] == [CELL]


def test_what_is_tried_cannot_be_laid_over_besides(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["sweep", "ds", "--from", "0.18.0", "--cells", CELL, "--with", "DS==0.18.0"]
    assert main(arguments) == 4
    assert "releases of it are what is tried" in capsys.readouterr().err


def test_seconds_are_nothing_to_bisect_by(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*BISECT[:-1], "epoch_seconds", "--good", "0.18.0", "--bad", "0.19.1"]
    assert main(arguments) == 4
    assert "epoch_seconds depends on the hardware of the day" in capsys.readouterr().err
