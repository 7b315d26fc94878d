"""What holds without a baseline: between cells, against arithmetic, against what is needed."""

from __future__ import annotations

import math
from typing import Any

import pytest
from records import RECIPE, a_cell, a_crossing, a_measurement, a_trace

from zerogate.metrics.measurement import Measurement
from zerogate.metrics.table import metric_named
from zerogate.protocol.record import Device
from zerogate.protocol.schedule import schedule
from zerogate.verdicts import invariants
from zerogate.verdicts.invariants import (
    judge_above,
    judge_equivalent,
    judge_falls,
    judge_grows,
    judge_moves,
    judge_needed,
    judge_offloads,
    judge_schedule,
)
from zerogate.verdicts.verdict import Verdict

STATES = metric_named("model_state_bytes")
LOSS = metric_named("loss")


def states(strategy: str, size: int, **cell: Any) -> Any:
    return a_measurement(a_cell(strategy, **cell), traced=a_trace(model_state_bytes=size))


def judge_below(own: Measurement, other: Measurement, *, offloads_more: bool = False) -> Verdict:
    return invariants.judge_below(own, other, STATES, offloads_more=offloads_more)


def course(total: int = 6) -> tuple[float, ...]:
    return tuple(
        RECIPE.learning_rate * schedule(step, warmup_steps=RECIPE.warmup_steps, total_steps=total)
        for step in range(total)
    )


@pytest.mark.parametrize(("size", "status"), [(99, "ok"), (100, "regressed"), (101, "regressed")])
def test_model_states_not_below_reference_are_regression(size: int, status: str) -> None:
    found = judge_below(states("zero1", size), states("ddp", 100))
    assert (found.status, found.measured, found.expected, found.against) == (
        status,
        size,
        100,
        "ddp",
    )
    assert found.metric == "model_state_bytes_below"


@pytest.mark.parametrize(("size", "status"), [(99, "regressed"), (100, "regressed"), (101, "ok")])
def test_host_memory_not_above_reference_is_regression(size: int, status: str) -> None:
    own = a_measurement(a_cell("zero2_offload"), peak_host_bytes=size)
    found = judge_above(own, a_measurement(peak_host_bytes=100), metric_named("peak_host_bytes"))
    assert (found.status, found.metric) == (status, "peak_host_bytes_above")


def placed(strategy: str, device: int, host: int) -> Measurement:
    """A cell of 1000 parameters whose model states are that many bytes on device and host."""
    trace = a_trace(model_state_bytes=device, crossings=a_crossing(host_state_bytes=host))
    return a_measurement(a_cell(strategy), traced=trace)


@pytest.mark.parametrize(
    ("device", "host", "statuses"),
    [
        pytest.param(4000, 6000, ("ok", "ok"), id="all that the papers say"),
        pytest.param(3000, 9000, ("ok", "ok"), id="buffers too"),
        pytest.param(4001, 6000, ("regressed", "ok"), id="a byte stays on the device"),
        pytest.param(4000, 5999, ("ok", "regressed"), id="a byte does not reach the host"),
        pytest.param(10000, 6000, ("regressed", "ok"), id="copied, but kept"),
        pytest.param(10000, 0, ("regressed", "regressed"), id="nothing is offloaded"),
        pytest.param(11000, 6000, ("regressed", "ok"), id="the device holds more"),
    ],
)
def test_offload_is_judged_in_both_directions(
    device: int, host: int, statuses: tuple[str, str]
) -> None:
    own, other = placed("zero2_offload", device, host), placed("zero2", 10000, 0)
    found = judge_offloads(own, other, 6.0, 6.0)
    assert tuple(one.status for one in found) == statuses
    assert [one.metric for one in found] == [
        "model_state_bytes_offloaded",
        "host_state_bytes_offloaded",
    ]
    assert [one.expected for one in found] == [6.0, 6.0]
    assert [one.measured for one in found] == [(10000 - device) / 1000, host / 1000]
    for one in found:
        said = "too little was offloaded, beside zero2"
        assert one.note == (said if one.status == "regressed" else "")


def test_offload_is_measured_from_what_other_holds_on_host() -> None:
    own, other = placed("zero2_offload", 4000, 6000), placed("zero2", 10000, 1000)
    assert [one.status for one in judge_offloads(own, other, 6.0, 6.0)] == ["ok", "regressed"]


def test_offload_to_disk_is_not_expected_on_host() -> None:
    own, other = placed("zero3_nvme", 0, 0), placed("zero3", 8000, 0)
    assert [one.status for one in judge_offloads(own, other, 8.0, 0.0)] == ["ok", "ok"]


@pytest.mark.parametrize("blind", ["own", "other"])
def test_offload_without_host_measurement_is_judged_on_device_alone(blind: str) -> None:
    pair = {"own": placed("zero2_offload", 4000, 6000), "other": placed("zero2", 10000, 0)}
    size = pair[blind].scalar("model_state_bytes")
    trace = a_trace(model_state_bytes=size, crossings=None)
    pair[blind] = a_measurement(pair[blind].cell, traced=trace)
    found = judge_offloads(pair["own"], pair["other"], 6.0, 6.0)
    assert [one.status for one in found] == ["ok", "not_comparable"]
    assert found[1].note == "not measured here"


def test_single_rank_is_judged_on_offload_but_not_on_sharding() -> None:
    alone = {"world_size": 1}
    found = judge_below(states("zero1", 100, **alone), states("ddp", 100, **alone))
    assert (found.status, found.note) == (
        "not_comparable",
        "a single rank has nobody to shard with",
    )
    offloaded = judge_below(
        states("zero3_nvme", 100, **alone), states("zero3", 100, **alone), offloads_more=True
    )
    assert offloaded.status == "regressed"


def test_metric_without_measurement_is_not_comparable() -> None:
    blind = a_measurement(traced=None)
    assert judge_below(blind, states("ddp", 100)).status == "not_comparable"
    assert judge_moves(blind, metric_named("disk_read_bytes")).status == "not_comparable"
    assert judge_needed(blind, metric_named("operators")).status == "not_comparable"


@pytest.mark.parametrize(("count", "status"), [(0, "ok"), (1, "regressed")])
def test_metric_off_its_needed_value_is_regression(count: int, status: str) -> None:
    found = judge_needed(a_measurement(samples_missed=count), metric_named("samples_missed"))
    assert (found.status, found.measured, found.expected) == (status, count, 0)


@pytest.mark.parametrize(("count", "status"), [(0, "regressed"), (1, "ok")])
def test_offload_without_disk_reads_is_regression(count: int, status: str) -> None:
    own = a_measurement(traced=a_trace(disk_read_bytes=count))
    assert judge_moves(own, metric_named("disk_read_bytes")).status == status


@pytest.mark.parametrize(
    ("loss", "status"),
    [
        pytest.param((3.0, 2.0, 1.0, 0.5), "ok", id="falls"),
        pytest.param((0.5, 9.0, 9.0, 0.4), "ok", id="rises between"),
        pytest.param((1.0, 1.0, 1.0, 1.0), "regressed", id="stays"),
        pytest.param((1.0, 0.5, 0.5, 1.1), "regressed", id="rises"),
        pytest.param((1.0, math.nan, 0.5, 0.4), "regressed", id="nan"),
        pytest.param((1.0, 0.5, 0.5, math.inf), "regressed", id="inf"),
    ],
)
def test_loss_that_rises_stays_or_is_not_finite_is_regression(
    loss: tuple[float, ...], status: str
) -> None:
    found = judge_falls(a_measurement(loss=loss), LOSS)
    assert found.status == status
    if not all(map(math.isfinite, loss)):
        assert found.step == next(i for i, value in enumerate(loss) if not math.isfinite(value))


def test_schedule_followed_to_end_is_ok() -> None:
    assert judge_schedule(a_measurement(learning_rate=course())).status == "ok"


@pytest.mark.parametrize("step", range(6))
def test_schedule_with_any_step_off_is_regression_at_step(step: int) -> None:
    rates = list(course())
    rates[step] = rates[step] * 1.01 + 1e-8
    found = judge_schedule(a_measurement(learning_rate=tuple(rates)))
    assert (found.status, found.step) == ("regressed", step)


def test_schedule_stepped_too_often_is_regression() -> None:
    rates = course(12)[::2]
    assert judge_schedule(a_measurement(learning_rate=rates)).status == "regressed"


@pytest.mark.parametrize(
    ("step_bytes", "tier", "status"),
    [
        (0, "cpu", "ok"),
        (1, "cpu", "regressed"),
        (-1, "cpu", "ok"),
        (512, "gpu", "ok"),
        (8192, "gpu", "regressed"),
    ],
)
def test_live_memory_growing_by_step_is_regression(step_bytes: int, tier: str, status: str) -> None:
    live = tuple(10**6 + step_bytes * step for step in range(6))
    found = judge_grows(a_measurement(a_cell(tier=tier), step_live_bytes=live))
    assert (found.status, found.measured) == (status, step_bytes)


def test_equivalent_run_with_fewer_steps_is_compared_on_those() -> None:
    own = a_measurement(loss=(4.0, 3.0, 2.0, 1.0))
    assert judge_equivalent(LOSS, own, a_measurement(loss=(4.0, 3.0)), "one_rank").status == "ok"
    found = judge_equivalent(LOSS, own, a_measurement(loss=(4.0, 3.5)), "one_rank")
    assert (found.status, found.metric, found.step) == ("regressed", "loss_one_rank", 1)


def test_loss_averaged_by_token_is_not_comparable() -> None:
    own = a_measurement(averages_samples=False)
    assert judge_equivalent(LOSS, own, own, "accumulation").status == "not_comparable"


def test_loss_without_learning_rate_need_not_fall() -> None:
    own = a_measurement(loss=(1.0, 1.0), learning_rate=(0.0, 0.0))
    assert judge_falls(own, LOSS).status == "not_comparable"
    broken = a_measurement(loss=(math.nan,), learning_rate=(0.0,))
    assert judge_falls(broken, LOSS).status == "regressed"


def test_loss_of_full_size_model_need_not_fall() -> None:
    full = a_cell(tier="gpu")
    rising = a_measurement(full, loss=(1.0, 1.1, 1.2, 1.3, 1.4, 1.5))
    assert judge_falls(rising, LOSS).status == "not_comparable"
    broken = a_measurement(full, loss=(1.0, 1.1, math.inf, 1.3, 1.4, 1.5))
    assert judge_falls(broken, LOSS).status == "regressed"


@pytest.mark.parametrize(
    ("skipped", "rates", "status"),
    [
        ((), (0, 1, 2, 3, 4, 5), "ok"),
        ((0, 1), (0, 0, 0, 1, 2, 3), "ok"),
        ((3,), (0, 1, 2, 3, 3, 4), "ok"),
        ((3,), (0, 1, 2, 3, 4, 5), "regressed"),
        ((), (0, 1, 2, 3, 3, 4), "regressed"),
    ],
)
def test_schedule_leaves_out_steps_skipped_by_loss_scaling(
    skipped: tuple[int, ...], rates: tuple[int, ...], status: str
) -> None:
    """``rates``: at which steps of the schedule each step trained."""
    own = a_measurement(
        a_cell(tier="gpu"),
        learning_rate=tuple(course()[step] for step in rates),
        step_skipped=tuple(step in skipped for step in range(6)),
    )
    assert judge_schedule(own).status == status


def test_host_memory_verdict_counts_pinned_and_skips_unknown() -> None:
    metric = metric_named("peak_host_bytes")

    def host(size: int, pinned: int) -> Any:
        device = Device(uuid="a", pid=1, peak_reserved_bytes=0, pinned_bytes=pinned)
        return a_measurement(a_cell(tier="gpu"), peak_host_bytes=size, device=device)

    assert judge_above(host(100, 50), host(120, 0), metric).status == "ok"
    assert judge_above(host(100, 10), host(120, 0), metric).status == "regressed"
    assert judge_above(host(0, 50), host(120, 0), metric).status == "not_comparable"
