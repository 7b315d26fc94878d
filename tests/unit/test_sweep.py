"""Release after release: what each changed against the one before it that ran."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zerogate.__main__ import main
from zerogate.asked import Options
from zerogate.cell import Cell, parse_cell
from zerogate.config_file import ConfigError
from zerogate.releases import command, index, report
from zerogate.releases import trial as trials
from zerogate.releases.index import releases
from zerogate.releases.sweep import Row, as_json, as_markdown, sweep
from zerogate.releases.trial import Trial, try_packages

CELL = "gpt2xl_wikitext2-zero2-w2-cpu"
PUBLISHED = ["0.19.1", "0.19.0", "0.18.10", "0.18.2", "0.18.2rc1", "0.18.0"]


def trial(*packages: str, norm: float = 1.5, live: int = 1000, **changes: Any) -> Trial:
    values = {CELL: {"gradient_norm": (2.0, norm), "live_bytes": live}}
    return Trial(**({"packages": packages, "values": values} | changes))


def rows(**by_release: Trial) -> list[Row]:
    """Of ``ds``, whose releases are named ``r1``, ``r2``, …"""
    return list(sweep(by_release, by_release.__getitem__))


def test_what_did_not_change_is_green() -> None:
    found = rows(r1=trial("ds==r1"), r2=trial("ds==r2"))
    assert [row.outcome for row in found] == ["green", "green"]
    assert (found[0].against, found[1].against) == ("", "r1")


def test_a_change_is_told_once_by_the_release_that_made_it() -> None:
    found = rows(r1=trial(""), r2=trial("", norm=1.0), r3=trial("", norm=1.0))
    assert [row.outcome for row in found] == ["green", "changed", "green"]
    (change,) = found[1].changes
    assert (change.metric, change.step, change.was, change.now) == ("gradient_norm", 1, 1.5, 1.0)


def test_what_cannot_be_installed_or_crashes_is_passed_over() -> None:
    found = rows(
        r1=trial(""),
        r2=trial("", values={}, invalid="pip: no wheel"),
        r3=trial("", values={}, failures={CELL: "crash: rank 1: boom"}),
        r4=trial("", live=1001),
    )
    assert [row.outcome for row in found] == ["green", "not installable", "crash", "changed"]
    assert found[3].against == "r1"


def test_the_table_says_what_and_against_which() -> None:
    found = rows(r1=trial(""), r2=trial("", norm=1.0), r3=trial("", values={}, invalid="a | b"))
    text = as_markdown("ds", [CELL], found)
    assert text.splitlines()[2:] == [
        "| r1 | green |  |",
        f"| r2 | changed | against r1: {CELL} `gradient_norm` at step 1: 1.5 → 1 |",
        "| r3 | not installable | a \\| b |",
    ]
    assert json.loads(json.dumps(as_json("ds", [CELL], found)))["rows"][1]["outcome"] == "changed"


def test_what_is_no_longer_measured_is_a_change() -> None:
    found = rows(r1=trial(""), r2=trial("", values={CELL: {"gradient_norm": (2.0, 1.5)}}))
    (change,) = found[1].changes
    assert (change.metric, change.now, change.worse) == ("live_bytes", None, True)


def test_what_is_kept_is_read_as_strictly_as_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged or foreign file is measured over, and cells of another command are left out."""
    measured: list[str] = []

    def measure(known: Trial, session: Any, cell: Cell) -> Trial:
        measured.append(cell.id)
        return replace(known, values=known.values | {cell.id: {"live_bytes": 7}})

    @contextmanager
    def laid_over(*_: Any) -> Iterator[Any]:
        yield SimpleNamespace(runner=SimpleNamespace(made_under=lambda: {"torch": "2.13"}))

    monkeypatch.setattr(trials, "_with", measure)
    monkeypatch.setattr(trials, "laid_over", laid_over)
    options = Options(root=tmp_path, report_folder=tmp_path)
    cell = parse_cell(CELL)
    path = tmp_path / "ds-1" / "trial.json"

    def tried() -> Trial:
        return try_packages(["ds==1"], [cell], options, lambda step: None)

    assert tried().values == {CELL: {"live_bytes": 7}}
    assert tried() == tried()
    assert measured == [CELL]
    good = json.loads(path.read_text())
    other = CELL.replace("zero2", "zero3")
    path.write_text(json.dumps({**good, "values": {CELL: {"live_bytes": 7}, other: {}}}))
    assert set(tried().values) == {CELL}
    for values in ({CELL: {"nothing": 7}}, {"no cell": {}}, {CELL: {"live_bytes": [7.0]}}):
        path.write_text(json.dumps({**good, "values": values}))
        assert tried().values == {CELL: {"live_bytes": 7}}
    assert len(measured) == 4


# The index


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    versions = ", ".join(PUBLISHED)
    told = SimpleNamespace(stdout=f"ds (0.19.1)\nAvailable versions: {versions}\n", stderr="")
    pip_runs(monkeypatch, lambda *_, **__: told)
    return told


def pip_runs(monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]) -> None:
    monkeypatch.setattr(index, "run_helper", run)


def test_releases_are_in_the_order_of_versions(pip: SimpleNamespace) -> None:
    assert releases("ds") == ["0.18.0", "0.18.2", "0.18.10", "0.19.0", "0.19.1"]
    assert releases("ds", first="0.18.1", last="0.19.0") == ["0.18.2", "0.18.10", "0.19.0"]


def test_none_of_these(pip: SimpleNamespace) -> None:
    with pytest.raises(
        ConfigError, match=r"ds: no release from 1 to the last; the index has 0\.18\.0"
    ):
        releases("ds", first="1")


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        ("", None, "--from: '' is no version"),
        ("0.19.1", "0.18.0", "--to: 0.18.0 is before --from 0.19.1"),
    ],
)
def test_versions_that_say_nothing(
    pip: SimpleNamespace, first: str, last: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        releases("ds", first=first, last=last)


@pytest.mark.parametrize("package", ["", "ds==0.18.0", "./ds"])
def test_what_is_no_packages_name(pip: SimpleNamespace, package: str) -> None:
    with pytest.raises(ConfigError, match="is no package's name"):
        releases(package)


def test_a_package_that_the_index_does_not_know(pip: SimpleNamespace) -> None:
    pip.stdout, pip.stderr = "", "WARNING: x\nERROR: No matching distribution found for ds\n"
    with pytest.raises(ConfigError, match=r"does not tell its releases .No matching distribution"):
        releases("ds")


# Cells and the command line


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

    def attempt(packages: Sequence[str], *_: Any) -> Trial:
        release = packages[-1].partition("==")[2]
        if release == "0.18.2":
            return trial(*packages, values={}, failures={CELL: "crash: boom"})
        return trial(*packages, norm=1.5 if release == "0.18.0" else 1.0)

    monkeypatch.setattr(command, "try_packages", attempt)
    monkeypatch.setattr(command, "try_anew", attempt)
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

    monkeypatch.setattr(command, "try_packages", refused)
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


def test_pip_that_hangs_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("pip", 120)

    pip_runs(monkeypatch, late)
    with pytest.raises(ConfigError, match="no answer"):
        releases("ds")
