"""How long things may take, and that lateness is seen in the phase where it is."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from records import PROVENANCE, a_job, a_measurement, a_record

from zerogate.launch.deadlines import (
    FLOOR_SECONDS,
    LAUNCH_SECONDS,
    PROBE_SECONDS,
    Deadlines,
    deadlines,
)
from zerogate.launch.watchdog import Watchdog, read_heartbeat
from zerogate.protocol.atomic_write import write_json
from zerogate.protocol.heartbeat import Heartbeat, Pulse, heartbeat_path
from zerogate.protocol.record import record_path
from zerogate.verdicts.baselines import CellBaseline, MetricBaseline, of_measurement

PHASED = Deadlines(launch=100.0, phases={"set-up": 30.0, "train": 5.0, "eval": 10.0})


def a_baseline(**seconds: float) -> CellBaseline:
    found = of_measurement(a_measurement(launches=3), PROVENANCE)
    metrics = {
        name: MetricBaseline(value=value, spread=0.0, launches=(value,) * 3)
        for name, value in seconds.items()
    }
    return replace(found, metrics=found.metrics | metrics)


def test_deadlines_without_baseline_are_floors() -> None:
    assert deadlines("cpu") == Deadlines(launch=LAUNCH_SECONDS["cpu"], phases=FLOOR_SECONDS["cpu"])


def test_deadlines_of_slow_baseline_are_ten_times_its_seconds() -> None:
    found = deadlines(
        "cpu",
        a_baseline(
            setup_seconds=50.0, step_seconds=10.0, eval_seconds=30.0, epoch_seconds=200.0
        ).scalars(),
        epochs=2,
    )
    assert found.phases == {"set-up": 500.0, "train": 100.0, "eval": 300.0, "trace": 120.0}
    assert found.launch == 10 * (50.0 + 30.0 + 2 * 200.0), "two epochs"


def test_deadlines_of_quick_baseline_are_floors() -> None:
    found = deadlines(
        "gpu", a_baseline(setup_seconds=0.5, step_seconds=0.01, eval_seconds=0.1).scalars()
    )
    assert found.phases == FLOOR_SECONDS["gpu"]


def test_deadline_from_user_applies_to_launch_and_all_phases() -> None:
    found = deadlines("cpu", launch=40.0)
    assert found == Deadlines(launch=40.0, phases=dict.fromkeys(FLOOR_SECONDS["cpu"], 40.0))


def beat(folder: Path, rank: int, phase: str, *, age: float, step: int = 3) -> None:
    found = Heartbeat(pid=1, phase=phase, step=step, at=time.monotonic() - age)
    write_json(heartbeat_path(folder, rank), found)


@pytest.mark.parametrize(
    ("phase", "age", "words"),
    [
        pytest.param("set-up", 29.0, "", id="set-up in time"),
        pytest.param(
            "set-up", 31.0, "rank 1 in set-up for 31 s; the limit is 30 s", id="set-up late"
        ),
        pytest.param("train", 4.0, "", id="step in time"),
        pytest.param("train", 6.0, "rank 1 in a step for 6 s; the limit is 5 s", id="step late"),
        pytest.param("eval", 9.0, "", id="eval in time"),
        pytest.param("eval", 11.0, "rank 1 in eval for 11 s; the limit is 10 s", id="eval late"),
        pytest.param("trace", 90.0, "", id="a phase that has none of its own"),
    ],
)
def test_watchdog_reports_rank_late_in_phase(
    tmp_path: Path, phase: str, age: float, words: str
) -> None:
    watch = Watchdog(a_job(tmp_path), tmp_path, PHASED)
    beat(tmp_path, 0, phase, age=0.0)
    beat(tmp_path, 1, phase, age=age)
    assert watch.overdue() == words


def test_watchdog_ignores_rank_with_written_record(tmp_path: Path) -> None:
    watch = Watchdog(a_job(tmp_path), tmp_path, PHASED)
    beat(tmp_path, 0, "train", age=0.0)
    beat(tmp_path, 1, "train", age=50.0)
    assert watch.overdue()
    write_json(record_path(tmp_path, 1), a_record(1))
    assert watch.overdue() == ""


def test_watchdog_reports_rank_without_heartbeat_as_late(tmp_path: Path) -> None:
    watch = Watchdog(a_job(tmp_path), tmp_path, Deadlines(launch=100.0, phases={"set-up": 0.0}))
    beat(tmp_path, 0, "train", age=0.0)
    assert watch.overdue().startswith("rank 1 in set-up for 0 s")


def test_watchdog_of_probe_ignores_phase_deadlines(tmp_path: Path) -> None:
    job = replace(a_job(tmp_path), purpose="probe")
    beat(tmp_path, 0, "train", age=50.0)
    beat(tmp_path, 1, "train", age=50.0)
    assert Watchdog(job, tmp_path, PHASED).overdue() == ""


def test_watchdog_reports_launch_past_deadline(tmp_path: Path) -> None:
    watch = Watchdog(a_job(tmp_path), tmp_path, Deadlines(launch=0.0))
    assert watch.overdue() == "the launch's limit is 0 s"


def test_heartbeat_is_read_as_written_and_keeps_its_size(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path, 1)
    size = []
    for step in (0, 10**9, 7):
        pulse.beat("train", step)
        found = read_heartbeat(tmp_path, 1)
        assert found is not None
        assert (found.phase, found.step) == ("train", step)
        assert found.age_seconds(time.monotonic()) >= 0
        size.append(heartbeat_path(tmp_path, 1).stat().st_size)
    assert len(set(size)) == 1


def test_absent_heartbeat_is_read_as_none(tmp_path: Path) -> None:
    assert read_heartbeat(tmp_path, 0) is None


def test_watchdog_of_probe_allows_one_hour_at_most(tmp_path: Path) -> None:
    job = replace(a_job(tmp_path), purpose="probe")
    watch = Watchdog(job, tmp_path, Deadlines(launch=10 * PROBE_SECONDS))
    watch.started -= PROBE_SECONDS
    assert watch.overdue() == "the launch's limit is 3600 s"


def test_restarted_watchdog_counts_from_now(tmp_path: Path) -> None:
    watch = Watchdog(a_job(tmp_path), tmp_path, Deadlines(launch=100.0))
    watch.started -= 101.0
    assert watch.overdue()
    watch.restart()
    assert watch.overdue() == ""
