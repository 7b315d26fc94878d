"""A search for what changed a metric, over one package or several, and what is written about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from zerogate.config.options import Options
from zerogate.config.strategy_file import ConfigError
from zerogate.protocol.cell import parse_cell
from zerogate.releases import issue_report as reports
from zerogate.releases.bisect import Bisect
from zerogate.releases.evaluation import Evaluation
from zerogate.releases.package_sets import PackageSets
from zerogate.releases.reproduction import Printed, Reproduction

CELL = "gpt2xl_wikitext2-zero2-w2-cpu"
SOFTWARE = {
    "python": "3.11", "torch": "2.13.0+cpu", "transformers": "5.23.0", "accelerate": "1.15.0",
    "deepspeed": "0.18.2", "deepspeed_file": "somewhere/deepspeed/__init__.py",
}  # fmt: skip
ROOT = Path(__file__).parents[2]
RELEASES = ["1", "2", "3", "4"]


def search(
    bad: dict[str, str],
    guilty: dict[str, int],
    unable: tuple[str, ...] = (),
    together: Callable[..., bool] = lambda **_: True,
) -> tuple[Bisect, list[str]]:
    """Over packages that are at release 1 on the good side: bad where each of ``guilty`` is at its
    release or later. Requirements in ``unable`` cannot be installed.
    """
    said: list[str] = []

    def attempt(packages: Sequence[str]) -> Evaluation:
        found = dict(one.split("==") for one in packages)
        if set(unable) & set(packages) or not together(**{n: int(r) for n, r in found.items()}):
            return Evaluation(packages=tuple(packages), invalid="pip: no")
        is_bad = all(int(found[name]) >= release for name, release in guilty.items())
        values: Any = {CELL: {"gradient_norm": (2.0, 1.0 if is_bad else 1.5), "flops": 7 + is_bad}}
        return Evaluation(packages=tuple(packages), software=SOFTWARE, values=values)

    package_sets = PackageSets(dict.fromkeys(bad, "1"), bad)
    one = Bisect(
        package_sets, parse_cell(CELL), "gradient_norm", attempt, attempt,
        releases={name: RELEASES[: int(high)] for name, high in bad.items()}, output=said.append,
    )  # fmt: skip
    return one, said


def test_bisect_of_several_packages_finds_culprit_and_release() -> None:
    found, said = search({"a": "4", "b": "4", "c": "4"}, {"b": 3})
    (culprit,) = found.culprits()
    assert (culprit.package, culprit.last_good, culprit.first_bad) == ("b", "2", "3")
    assert culprit.bad.packages == ("a==1", "b==3", "c==1"), "the others stay as they were"
    assert "the change needs b" in said
    assert len(said) == len(set(said)), "nothing is tried twice"


def test_bisect_finds_both_culprits_of_joint_regression() -> None:
    found, said = search({"a": "4", "b": "2", "c": "4"}, {"a": 3, "b": 2})
    one, other = found.culprits()
    assert str(one) == "a 3 is the first bad one; 2 is good; with b 2"
    assert str(other) == "b 2 is the first bad one; 1 is good; with a 4"
    assert "the change needs a and b" in said


def test_culprit_names_releases_that_cannot_be_installed() -> None:
    found, _ = search({"a": "4", "b": "4"}, {"a": 4}, unable=("a==2", "a==3"))
    (culprit,) = found.culprits()
    assert str(culprit).endswith("it may be one of 2, 3, which cannot run here")


@pytest.mark.parametrize(
    ("guilty", "unable", "message"),
    [
        ({"a": 9}, (), "--bad should be bad but measures the same as --good"),
        ({"a": 2}, ("a==1",), "--good should be good but cannot be measured"),
        ({"a": 2}, ("b==4",), "--bad should be bad but cannot be measured"),
    ],
)
def test_bisect_with_unusable_good_or_bad_set_is_refused(
    guilty: dict[str, int], unable: tuple[str, ...], message: str
) -> None:
    found, _ = search({"a": "4", "b": "4"}, guilty, unable)
    with pytest.raises(ConfigError, match=message):
        list(found.culprits())


def test_bisect_of_interdependent_packages_keeps_known_culprit() -> None:
    """``a`` 4 is the cause; from 3 on it needs ``b`` at 2 or later."""
    found, said = search({"a": "4", "b": "4"}, {"a": 4}, together=lambda a, b: a < 3 or b >= 2)
    (culprit,) = found.culprits()
    assert str(culprit) == "a 4 is the first bad one; 3 is good; with b 4"
    assert said[-1] == (
        "b: 1 cannot be measured with a 4: they run only together, so the first bad release of b "
        "cannot be found"
    )


# The report


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(root=ROOT, report_folder=tmp_path)


def report(
    options: Options, reproduction: Reproduction | None, monkeypatch: Any
) -> tuple[str, str]:
    """The report, and what was said of it."""
    monkeypatch.setattr(reports, "reproduce", lambda *_, **__: reproduction)
    found, _ = search({"deepspeed": "4"}, {"deepspeed": 3})
    said: list[str] = []
    (culprit,) = found.culprits()
    reports.report(
        found,
        culprit,
        options,
        command="zerogate bisect …",
        progress=lambda _: None,
        output=said.append,
    )
    return (options.report_folder / "report-deepspeed.md").read_text(), "\n".join(said)


def test_report_has_numbers_versions_command_and_script(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = Reproduction("print(1)\n", Printed('{"loss": 1}', 1), Printed('{"loss": 2}', 2), True)
    text, said = report(options, printed, monkeypatch)
    assert text.startswith("# deepspeed 3: gradient norm by step of gpt2xl_wikitext2 under zero2\n")
    assert "| `gradient_norm` at step 1 | 1.5 | 1 |" in text
    assert "| `flops` | 7 | 8 |" in text, "what else changed with it"
    assert "pip install torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 deepspeed==" in text
    assert (
        'prints with deepspeed 2\n\n```\n{"loss": 1}\n```\n\nand with 3\n\n```\n{"loss": 2}' in text
    )
    assert "```python\nprint(1)\n```" in text
    assert "zerogate bisect …" in text
    assert "does not show" not in text + said
    assert not re.search(r"somewhere|\n\n\n", text), "no path of this machine, no holes"


def test_report_with_script_without_difference_says_so(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = Reproduction("", Printed("{}", 1), Printed("{}", 1), False)
    text, said = report(options, same, monkeypatch)
    assert "**The script alone does not show the difference**" in text
    assert "does not show it" in said


def test_report_of_metric_without_script_says_so(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, said = report(options, None, monkeypatch)
    assert "No script shows this metric without zerogate" in text
    assert "no script can show gradient_norm" in said
