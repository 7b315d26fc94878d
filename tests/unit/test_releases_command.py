"""``zerogate sweep`` and ``zerogate bisect``, from the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from evaluations import CELL, evaluation

from zerogate.cli import releases as command
from zerogate.cli.main import main
from zerogate.config.strategy_file import ConfigError
from zerogate.protocol.cell import Cell, parse_cell
from zerogate.releases import issue_report as report
from zerogate.releases.evaluation import Evaluation


@pytest.mark.parametrize("tier", ["cpu", "gpu"])
def test_parse_cell_reads_back_cell_id(tier: Any) -> None:
    cell = Cell(workload="gpt2xl_wikitext2", strategy="zero2", world_size=2, tier=tier)
    assert parse_cell(cell.id) == cell


@pytest.mark.parametrize("text", ["", "gpt2xl_wikitext2", "a-b-w0", "a-b-w2-tpu", "a-b-2"])
def test_parse_cell_refuses_invalid_id(text: str) -> None:
    with pytest.raises(ValueError, match="is no cell"):
        parse_cell(text)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pip: SimpleNamespace) -> Path:
    """A project's folder, in which releases since 0.18.10 have another norm, and 0.18.2 cannot run."""
    for file in ("workloads/gpt2xl_wikitext2.py", "configs/zero2.yaml"):
        (tmp_path / file).parent.mkdir()
        shutil.copy(Path(__file__).parents[2] / file, tmp_path / file)
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


def test_bisect_command_reports_first_bad_release(
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


def test_bisect_command_in_reverse_reports_fixing_release(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*BISECT, "--good", "0.19.1", "--bad", "0.18.0"]) == 0
    found = capsys.readouterr().out.splitlines()[-3]
    assert found.startswith("ds 0.18.10 fixed it; 0.18.0 is the last bad one")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--good", "0.19.0", "--bad", "0.19.1"],
            "0.19.1 should be bad but measures the same as 0.19.0",
        ),
        (["--good", "0.18.0", "--bad", "0.18.0"], "--bad: 0.18.0 is --good too"),
        (["--good", "0.18.0", "--bad", "0.18.1"], "0.18.1: not a release of ds"),
        (["--good", "old", "--bad", "0.18.1"], "--good: 'old' is not a version"),
    ],
)
def test_bisect_command_with_unusable_range_reports_error(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([*BISECT, *arguments]) == 4
    error = capsys.readouterr().err
    assert error.startswith("ERROR: ")
    assert message in error


def test_sweep_command_prints_and_writes_outcomes(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
def test_sweep_command_with_unknown_cells_reports_error(
    project: Path, capsys: pytest.CaptureFixture[str], cells: str, message: str
) -> None:
    assert main(["sweep", "ds", "--from", "0.18.0", "--cells", cells]) == 4
    assert message in capsys.readouterr().err


def test_sweep_command_with_unusable_cache_reports_error(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise ConfigError("/cache: Not a directory; overlays are kept there")

    monkeypatch.setattr(command, "evaluate_packages", refused)
    assert main(["sweep", "ds", "--from", "0.18.0", "--cells", CELL]) == 4
    assert capsys.readouterr().err.startswith("ERROR: /cache: Not a directory")


def test_sweep_command_with_file_as_report_folder_reports_error(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "zerogate-report").touch()
    assert main(["sweep", "ds", "--from", "0.18.0", "--cells", CELL]) == 4
    error = capsys.readouterr().err
    assert error.startswith("ERROR: ")
    assert error.count("\n") == 1


def test_sweep_command_counts_repeated_cell_once(project: Path) -> None:
    assert main(["sweep", "ds", "--from", "0.18.0", "--cells", f"{CELL},{CELL}"]) == 0
    found = json.loads((project / "zerogate-report" / "sweep-ds" / "sweep.json").read_text())
    assert found["cells"] == [CELL]


def test_sweep_command_refuses_overlay_of_swept_package(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["sweep", "ds", "--from", "0.18.0", "--cells", CELL, "--with", "DS==0.18.0"]
    assert main(arguments) == 4
    assert "its releases are under test" in capsys.readouterr().err


def test_bisect_command_refuses_metric_in_seconds(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*BISECT[:-1], "epoch_seconds", "--good", "0.18.0", "--bad", "0.19.1"]
    assert main(arguments) == 4
    assert "epoch_seconds depends on the hardware" in capsys.readouterr().err
