"""results.json: its keys are read by others, and do not change with the names in the code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from records import a_cell, a_measurement

from zerogate.config.options import Options
from zerogate.metrics.batch_size import BatchSize
from zerogate.report.results import SCHEMA_VERSION, write_results
from zerogate.report.terminal import summary
from zerogate.session.session import Session

ROOT = Path(__file__).parents[2]


def test_keys_of_results_are_those_of_schema_version_1(tmp_path: Path) -> None:
    session = Session(Options(root=ROOT, report_folder=tmp_path), launchers={})
    cell = a_cell()
    session.measurements[cell] = a_measurement(cell, device_events=("it was throttled",))
    session.batch_sizes[cell, "train"] = BatchSize(
        kind="train", size=4, budget_bytes=9, launches=2, other_processes=(77,)
    )
    found = json.loads(write_results(session).read_text())
    assert found["schema_version"] == SCHEMA_VERSION == 1
    assert found.keys() == {
        "schema_version", "environment", "cells", "measurements", "failures", "batch_sizes",
        "verdicts", "against",
    }  # fmt: skip
    (measurement,) = found["measurements"]
    assert measurement.keys() == {
        "cell", "settings", "software", "notes", "model_states", "values", "launches"
    }  # fmt: skip
    (launch,) = measurement["launches"]
    assert launch.keys() == {
        "values", "per_rank", "canary_seconds", "troubles", "skipped", "device_source",
        "peak_missing",
    }  # fmt: skip
    assert launch["troubles"] == ["it was throttled"]
    (size,) = found["batch_sizes"]
    assert size.keys() == {
        "cell", "kind", "size", "budget_bytes", "launches", "base_bytes", "bytes_per_sample",
        "headroom_bytes", "process_bytes", "samples_per_second", "allocator_retries", "troubles",
        "strangers", "note", "searches",
    }  # fmt: skip
    assert size["strangers"] == [77]


def test_certificate_prints_peak_of_process_beside_budget(tmp_path: Path) -> None:
    session = Session(Options(root=ROOT, report_folder=tmp_path), launchers={})
    cell, other = a_cell(), a_cell("ddp")
    for one, peak in ((cell, 3 * 2**30), (other, 0)):
        session.measurements[one] = a_measurement(one)
        session.batch_sizes[one, "train"] = BatchSize(
            kind="train", size=4, budget_bytes=4 * 2**30, launches=2, process_bytes=peak
        )
    text = summary(session)
    assert "processes at their largest batch, of the budget: zero2 3.00 GiB of 4.00 GiB\n" in text


def test_number_that_is_none_becomes_null(tmp_path: Path) -> None:
    session = Session(Options(root=ROOT, report_folder=tmp_path), launchers={})
    session.measurements[a_cell()] = a_measurement(loss=(float("nan"),) * 6)
    text = write_results(session).read_text()
    assert "NaN" not in text
    assert json.loads(text)["measurements"][0]["values"]["loss"] == [None] * 6
    assert replace(a_cell(), tier="gpu").id not in text
