"""``benchmarks/spread.py``: launches that nothing distinguishes, next to the limits on cards."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.spread import main, spread
from zerogate.metrics.aggregation import LaunchValues, Value
from zerogate.metrics.table import METRICS


def results(folder: Path, *launches: dict[str, Value]) -> Path:
    """A report whose only cell had these launches."""
    made = [asdict(LaunchValues(values=one, per_rank={}, canary_seconds=0.1)) for one in launches]
    content = {"measurements": [{"cell": "deberta_mrpc-zero2-w1-gpu", "launches": made}]}
    (folder / "results.json").write_text(json.dumps(content))
    return folder


def test_spread_is_held_to_limit_on_cards_at_the_median() -> None:
    found = spread(METRICS["epoch_seconds"], [10.2, 10.0, 9.9])
    assert found.median == 10.0
    assert found.apart == pytest.approx(0.3)
    assert found.relative == pytest.approx(0.03)
    assert found.allowed == pytest.approx(1.0), "10 % on cards, not the 50 % of the cpu tier"
    assert found.share == pytest.approx(0.3)


def test_spread_of_series_is_that_of_its_worst_step() -> None:
    launches = [(4.0, 2.0, 1.0), (4.0, 2.02, 1.0), (4.01, 2.0, 1.0)]
    found = spread(METRICS["loss"], launches)
    assert (found.step, found.median) == (1, 2.0)
    assert found.share == pytest.approx(0.5)


def test_spread_of_exact_metric_that_differs_is_beyond_any_limit() -> None:
    found = spread(METRICS["operators"], [100, 101, 100])
    assert (found.apart, found.share) == (1, float("inf"))
    assert spread(METRICS["operators"], [100, 100]).share == 0


def test_spread_around_zero_has_no_relative_value() -> None:
    assert spread(METRICS["allocator_retries"], [0, 2, 0]).relative is None


def test_spread_command_prints_worst_metric_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch: dict[str, Value] = {"live_bytes": 10**9, "step_seconds": 1.0, "loss": (3.0, 2.0)}
    report = results(tmp_path, launch, launch | {"step_seconds": 1.05}, launch)
    assert main([str(report)]) == 0
    title, _, first, *others = capsys.readouterr().out.splitlines()
    assert title == "deberta_mrpc-zero2-w1-gpu: 3 launches"
    assert first.split() == (
        ["step_seconds", "1", "0.05", "5.000%", "0.1", "50%", "10.000%", "or", "0.02"]
    )
    assert [line.split()[0] for line in others] == ["live_bytes", "loss"]


def test_spread_command_leaves_out_what_is_not_finite_or_not_of_every_launch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = results(
        tmp_path,
        {"live_bytes": 5, "loss": (1.0, None), "mfu": 0.1, "own_score": 2.0},  # type: ignore[arg-type]
        {"live_bytes": 5, "loss": (1.0, 2.0), "own_score": 2.0},
    )
    assert main([str(report / "results.json")]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == ["live_bytes"]


def test_spread_command_without_launches_to_compare_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(results(tmp_path, {"live_bytes": 5}))]) == 1
    assert "run it with --repeats 3" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere")]) == 1
    assert "nowhere: cannot be read" in capsys.readouterr().err
