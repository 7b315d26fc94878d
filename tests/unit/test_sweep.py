"""Release after release: what each changed against the one before it that ran."""

from __future__ import annotations

import json

from evaluations import CELL, evaluation

from zerogate.releases.evaluation import Evaluation
from zerogate.releases.sweep import Row, as_json, as_markdown, sweep


def rows(**by_release: Evaluation) -> list[Row]:
    """Of ``ds``, whose releases are named ``r1``, ``r2``, …"""
    return list(sweep(by_release, by_release.__getitem__))


def test_unchanged_release_is_green() -> None:
    found = rows(r1=evaluation("ds==r1"), r2=evaluation("ds==r2"))
    assert [row.outcome for row in found] == ["green", "green"]
    assert (found[0].against, found[1].against) == ("", "r1")


def test_change_is_reported_only_for_release_that_made_it() -> None:
    found = rows(r1=evaluation(""), r2=evaluation("", norm=1.0), r3=evaluation("", norm=1.0))
    assert [row.outcome for row in found] == ["green", "changed", "green"]
    (change,) = found[1].changes
    assert (change.metric, change.step, change.was, change.now) == ("gradient_norm", 1, 1.5, 1.0)


def test_failed_release_is_not_used_as_reference() -> None:
    found = rows(
        r1=evaluation(""),
        r2=evaluation("", values={}, invalid="pip: no wheel"),
        r3=evaluation("", values={}, failures={CELL: "crash: rank 1: boom"}),
        r4=evaluation("", live=1001),
    )
    assert [row.outcome for row in found] == ["green", "not installable", "crash", "changed"]
    assert found[3].against == "r1"


def test_markdown_table_names_change_and_reference() -> None:
    found = rows(
        r1=evaluation(""),
        r2=evaluation("", norm=1.0),
        r3=evaluation("", values={}, invalid="a | b"),
    )
    text = as_markdown("ds", [CELL], found)
    assert text.splitlines()[2:] == [
        "| r1 | green |  |",
        f"| r2 | changed | against r1: {CELL} `gradient_norm` at step 1: 1.5 → 1 |",
        "| r3 | not installable | a \\| b |",
    ]
    assert json.loads(json.dumps(as_json("ds", [CELL], found)))["rows"][1]["outcome"] == "changed"


def test_metric_no_longer_measured_is_reported_as_change() -> None:
    found = rows(r1=evaluation(""), r2=evaluation("", values={CELL: {"gradient_norm": (2.0, 1.5)}}))
    (change,) = found[1].changes
    assert (change.metric, change.now, change.worse) == ("live_bytes", None, True)
