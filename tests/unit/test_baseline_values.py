"""What a recording keeps of a measurement."""

from __future__ import annotations

from typing import Any

import pytest
from records import PROVENANCE, a_measurement, a_memory, a_record, measured

from zerogate.verdicts.baselines import of_measurement, spread, with_speedup


@pytest.mark.parametrize(
    ("value", "launches", "expected"),
    [
        pytest.param(100, [100, 100, 100], 0.0, id="none"),
        pytest.param(100, [75, 100, 110], 0.25, id="the largest deviation, to either side"),
        pytest.param(-100, [-125, -100, -90], 0.25, id="of a negative value"),
        pytest.param(0, [-3, 0, 2], 3, id="of zero: absolute"),
        pytest.param((10.0, 4.0), [(10.0, 4.0), (11.0, 5.0)], 0.25, id="of the worst step"),
        pytest.param((), [(), ()], 0.0, id="of no steps"),
    ],
)
def test_spread_is_largest_deviation_of_launches(
    value: Any, launches: list[Any], expected: float
) -> None:
    assert spread(value, launches) == expected


def test_baseline_keeps_every_launch_and_median() -> None:
    found = of_measurement(
        measured(*[[a_record(memory=a_memory(peak))] for peak in (80, 100, 104)]), PROVENANCE
    ).metrics["peak_allocated_bytes"]
    assert (found.value, found.launches, found.spread) == (100, (80, 100, 104), 0.2)


@pytest.mark.parametrize(
    ("name", "field", "given", "recorded"),
    [
        pytest.param("peak_host_bytes", "peak_host_bytes", 123456789, 123456789, id="bytes"),
        pytest.param("eval_seconds", "eval_seconds", 1.23456789, 1.2346, id="seconds"),
        pytest.param("loss", "loss", (1 / 3, 0.0), (0.3333333, 0.0), id="a series"),
    ],
)
def test_baseline_values_are_rounded_by_metric(
    name: str, field: str, given: Any, recorded: Any
) -> None:
    found = of_measurement(a_measurement(**{field: given}), PROVENANCE)
    assert found.metrics[name].value == recorded
    assert found.metrics[name].launches == (recorded,)


def test_baseline_keeps_settings_and_provenance() -> None:
    measurement = a_measurement()
    found = of_measurement(measurement, PROVENANCE)
    assert found.settings == measurement.settings
    assert found.provenance == PROVENANCE


def test_speedup_is_added_as_one_more_metric() -> None:
    without_speedup = of_measurement(a_measurement(), PROVENANCE)
    found = with_speedup(without_speedup, "speedup_over_ddp", (1.5, 1.25, 1.123456))
    entry = found.metrics["speedup_over_ddp"]
    assert (entry.value, entry.launches, entry.spread) == (1.25, (1.5, 1.25, 1.123), 0.2)
    assert found.metrics == without_speedup.metrics | {"speedup_over_ddp": entry}
