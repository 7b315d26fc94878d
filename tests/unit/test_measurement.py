"""Aggregation: over the ranks of a launch, then over the launches of a cell."""

from __future__ import annotations

from typing import Any

import pytest
from records import (
    a_cell,
    a_measurement,
    a_memory,
    a_record,
    a_trace,
    measured,
)

from zerogate.metrics.aggregation import slope
from zerogate.metrics.measurement import differing_settings, median, speedup_over

PEAKS = [
    pytest.param("peak_allocated_bytes", "steady", id="steady"),
    pytest.param("peak_init_bytes", "init", id="init"),
    pytest.param("peak_first_step_bytes", "first_step", id="first step"),
    pytest.param("peak_eval_bytes", "eval", id="eval"),
]


@pytest.mark.parametrize(("name", "phase"), PEAKS)
def test_peak_memory_is_maximum_over_ranks_in_its_own_phase(name: str, phase: str) -> None:
    found = measured(
        [
            a_record(0, memory=a_memory(100, **{phase: 800})),
            a_record(1, memory=a_memory(100, **{phase: 900})),
        ]
    )
    assert found.value(name) == 900
    assert [found.value(param.values[0]) for param in PEAKS].count(900) == 1


def test_live_bytes_are_taken_after_steady_step() -> None:
    assert a_measurement(memory=a_memory(100, steady=600)).value("live_bytes") == 300


@pytest.mark.parametrize(
    ("name", "field", "of_ranks", "expected"),
    [
        pytest.param("epoch_seconds", "train_seconds", [(1.0, 5.0), (3.0, 4.0)], 4.0, id="epoch"),
        pytest.param("eval_seconds", "eval_seconds", [0.2, 0.3], 0.3, id="eval"),
        pytest.param("setup_seconds", "setup_seconds", [2.0, 1.0], 2.0, id="set-up"),
        pytest.param("peak_host_bytes", "peak_host_bytes", [10, 30], 30, id="host memory"),
        pytest.param(
            "samples_per_epoch", "step_samples", [(8,) * 6, (8,) * 5 + (6,)], 47, id="samples"
        ),
        pytest.param("loss", "loss", [(1.0, 2.0), (3.0, 2.5)], (2.0, 2.25), id="loss"),
        pytest.param("gradient_norm", "gradient_norm", [(1.0,), (1.0,)], (1.0,), id="norm"),
        pytest.param("f1", "quality", [{"f1": 0.9}, {}], 0.9, id="quality"),
    ],
)
def test_rank_values_are_aggregated_to_one_value(
    name: str, field: str, of_ranks: list[Any], expected: Any
) -> None:
    """Time from the slowest, samples summed, losses averaged, what is global from rank 0."""
    found = measured([a_record(rank, **{field: value}) for rank, value in enumerate(of_ranks)])
    assert found.value(name) == expected


def test_step_time_is_of_slowest_rank_without_warm_up() -> None:
    found = measured(
        [
            a_record(0, step_seconds=(9.0, 9.0, 9.0, 1.0, 1.0, 1.0)),
            a_record(1, step_seconds=(9.0, 9.0, 9.0, 3.0, 2.0, 1.0)),
        ]
    )
    assert found.value("step_seconds") == 2.0


def test_step_time_of_warm_up_only_run_is_present() -> None:
    assert a_measurement(step_seconds=(3.0, 1.0)).value("step_seconds") == 2.0


def test_epoch_time_counts_warm_up_steps_at_steady_pace() -> None:
    """Five steps, three of them warm-up: the other two took 2 of the 29 seconds."""
    found = a_measurement(step_seconds=(9.0, 9.0, 9.0, 1.0, 1.0), train_seconds=(29.0,))
    assert found.value("epoch_seconds") == 5.0


def test_epoch_time_corrects_warm_up_of_first_epoch_only() -> None:
    first, second = (9.0, 9.0, 9.0, 1.0), (2.0, 2.0, 2.0, 2.0)
    found = a_measurement(step_seconds=first + second, train_seconds=(28.0, 8.0))
    assert found.value("epoch_seconds") == (4.0 + 8.0) / 2


@pytest.mark.parametrize(
    ("step_samples", "expected", "kind"),
    [
        pytest.param((8, 8), 16, int, id="as many in every epoch: a whole number"),
        pytest.param((8, 7, 1, 1), 17, int, id="whole although the epochs differ"),
        pytest.param((8, 8.5), 16.5, float, id="not whole"),
    ],
)
def test_samples_per_epoch_are_summed_over_ranks(
    step_samples: tuple[int, ...], expected: float, kind: type
) -> None:
    found = a_measurement(step_samples=step_samples, train_seconds=(1.0, 1.0))
    assert found.value("samples_per_epoch") == expected
    assert isinstance(found.value("samples_per_epoch"), kind)


def test_throughput_is_samples_of_all_ranks_over_epoch_time() -> None:
    found = a_measurement(step_samples=(8,) * 6, train_seconds=(2.0, 2.0))
    assert found.value("samples_per_second") == 2 * 48 / 2 / 2.0


def test_per_rank_values_are_kept_for_worst_rank_metrics() -> None:
    found = measured([a_record(0, peak_host_bytes=10), a_record(1, peak_host_bytes=30)])
    per_rank = found.launches[0].per_rank
    assert per_rank["peak_host_bytes"] == (10, 30)
    assert per_rank["peak_allocated_bytes"] == (1000, 1000)


def test_rank_with_shorter_series_raises_value_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        measured([a_record(0, loss=(1.0, 2.0)), a_record(1, loss=(1.0,))])


def test_memory_metrics_without_source_are_absent_with_reason() -> None:
    found = a_measurement(memory={}, memory_source="no compiler")
    names = {"live_bytes", "model_state_bytes", "leak_bytes_per_step"}
    names |= {param.values[0] for param in PEAKS}
    assert found.notes == dict.fromkeys(names, "no compiler")
    assert not names & set(found.names)
    assert {found.value(name) for name in names} == {None}


def test_notes_with_measured_memory_are_empty() -> None:
    assert a_measurement().notes == {}


@pytest.mark.parametrize(
    ("peaks", "expected"),
    [
        pytest.param([5], 5, id="one launch"),
        pytest.param([9, 1, 5], 5, id="three launches"),
        pytest.param([9, 1, 5, 6], 5, id="an even number: one of the launches', not between"),
    ],
)
def test_launch_values_are_aggregated_to_median(peaks: list[int], expected: int) -> None:
    found = measured(*[[a_record(memory=a_memory(peak))] for peak in peaks])
    assert found.value("peak_allocated_bytes") == expected
    assert isinstance(found.value("peak_allocated_bytes"), int)


def test_median_of_series_is_taken_per_step() -> None:
    assert median([(1.0, 9.0), (2.0, 8.0), (3.0, 7.0)]) == (2.0, 8.0)


def test_median_of_series_of_different_lengths_is_first_series() -> None:
    assert median([(1.0, 2.0), (3.0,), (5.0, 6.0)]) == (1.0, 2.0)


def test_canary_is_median_over_launches_of_slowest_rank() -> None:
    found = measured(
        *[
            [a_record(0, canary_seconds=fast), a_record(1, canary_seconds=slow)]
            for fast, slow in [(1.0, 2.0), (1.0, 9.0), (1.0, 3.0)]
        ]
    )
    assert found.canary_seconds == 3.0


def test_metric_read_as_wrong_kind_raises_assertion_error() -> None:
    found = a_measurement()
    with pytest.raises(AssertionError, match="loss"):
        found.scalar("loss")
    with pytest.raises(AssertionError, match="epoch_seconds"):
        found.series("epoch_seconds")


def test_speedup_is_reference_epoch_time_over_own() -> None:
    reference = a_measurement(a_cell("ddp"), train_seconds=(3.0, 3.0))
    assert speedup_over(reference, a_measurement(train_seconds=(2.0, 2.0))) == 1.5


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        pytest.param({"epochs": 2}, {"epochs": 2}, [], id="equal"),
        pytest.param({"epochs": 2}, {"epochs": 1}, ["epochs: 1 -> 2"], id="changed"),
        pytest.param({"epochs": 2}, {}, ["epochs: None -> 2"], id="new"),
        pytest.param({}, {"epochs": 2}, ["epochs: 2 -> None"], id="gone"),
        pytest.param(
            {"a": 1, "b": 2, "c": 3}, {"c": 1, "b": 2, "a": 3}, ["a: 3 -> 1", "c: 1 -> 3"], id="two"
        ),
    ],
)
def test_differing_settings_are_named_with_both_values(
    ours: dict[str, int], theirs: dict[str, int], expected: list[str]
) -> None:
    assert differing_settings(ours, theirs) == expected


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        pytest.param([], 0, id="none"),
        pytest.param([5], 0, id="one"),
        pytest.param([7] * 9, 0, id="level"),
        pytest.param([7, 7, 7, 7, 900, 7, 7, 7], 0, id="one step that differs"),
        pytest.param([7] * 8 + [3], 0, id="the last step differs"),
        pytest.param([4 * step for step in range(9)], 4, id="a leak each step"),
        pytest.param([8 * (step // 2) for step in range(12)], 4, id="a leak every other step"),
        pytest.param([4 * step for step in range(5000)], 4, id="many steps"),
    ],
)
def test_slope_is_nonzero_only_for_leak(series: list[int], expected: int) -> None:
    assert slope(series) == expected


def test_trace_counts_are_maximum_over_ranks() -> None:
    found = measured(
        [a_record(0, traced=a_trace(operators=5)), a_record(1, traced=a_trace(operators=7))]
    )
    assert found.value("operators") == 7
    assert found.value("all_reduce_calls") == 2
    assert found.value("all_reduce_payload_bytes") == 400
    assert found.value("broadcast_calls") == 0


def test_trace_counts_without_trace_are_absent() -> None:
    assert "operators" not in a_measurement(traced=None).names


@pytest.mark.parametrize(("precision", "count"), [("fp16", 2), ("bf16", None), ("no", None)])
def test_skipped_steps_are_counted_only_in_fp16(precision: str, count: int | None) -> None:
    applied = {"dtype": "float16", "mixed_precision": precision}
    record = a_record(applied=applied, step_skipped=(True, True, False, False, False, False))
    assert measured([record]).value("skipped_steps") == count


@pytest.mark.parametrize(("tier", "device"), [("cpu", "emulated"), ("gpu", None)])
def test_device_is_setting_on_cpu_tier_only(tier: Any, device: str | None) -> None:
    found = measured([a_record(0)], cell=a_cell(tier=tier))
    assert found.settings.get("device") == device


@pytest.mark.parametrize(
    ("tier", "recorded", "kept"),
    [
        ("gpu", {}, None),
        ("gpu", {"allocator_settings": ""}, None),
        ("gpu", {"allocator_settings": "expandable_segments:False"}, None),
        ("gpu", {"allocator_settings": "expandable_segments:True"}, "expandable_segments:True"),
        ("cpu", {"allocator_settings": "expandable_segments:True"}, None),
    ],
)
def test_other_allocator_settings_on_card_are_setting(
    tier: Any, recorded: dict[str, str], kept: str | None
) -> None:
    """So that they are never held to a baseline of the plain allocator."""
    found = measured([a_record(0, environment=recorded)], cell=a_cell(tier=tier))
    assert found.settings.get("allocator_settings") == kept
