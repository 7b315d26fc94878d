"""Re-recording: a baseline file changes where what was measured did, and nowhere else."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from records import a_cell, a_measurement, a_memory

from zerogate.config.options import Options
from zerogate.metrics.measurement import Measurement
from zerogate.protocol.cell import Cell
from zerogate.session import record_baselines as recording
from zerogate.session.record_baselines import record_baselines, unfit
from zerogate.session.session import Session
from zerogate.verdicts.baselines import read_baselines
from zerogate.verdicts.verdict import Verdict

DDP, ZERO2, ZERO3 = a_cell("ddp"), a_cell("zero2"), a_cell("zero3")
FILE = "deberta_mrpc.json"


def in_all(cell: Cell, **changes: Any) -> Measurement:
    """Three launches of ``cell``, as recording asks for."""
    return a_measurement(cell, launches=3, **changes)


def record(
    folder: Path,
    *measurements: Measurement,
    reason: str = "first",
    verdicts: Iterable[Verdict] = (),
) -> dict[str, Any]:
    """Record what a session measured; the cells of the file afterwards, as JSON."""
    session = measured_by(folder, *measurements, verdicts=verdicts)
    record_baselines(session, reason)
    path = folder / FILE
    return dict(json.loads(path.read_text())["cells"]) if path.exists() else {}


def measured_by(
    folder: Path, *measurements: Measurement, verdicts: Iterable[Verdict] = ()
) -> Session:
    session = Session(
        Options(
            root=folder,
            baseline_folder=folder,
            report_folder=folder,
            cache_folder=folder,
            repeats=3,
        ),
        launchers={},
    )
    session.measurements = {measurement.cell: measurement for measurement in measurements}
    session.verdicts = list(verdicts)
    return session


def parity(cell: Cell, status: Any) -> Verdict:
    return Verdict(cell=cell, metric="loss_parity", status=status, unit="nats", against="ddp")


def test_first_recording_contains_every_cell_and_can_be_read(tmp_path: Path) -> None:
    cells = record(tmp_path, in_all(DDP), in_all(ZERO2), reason="first of all")
    assert set(cells) == {"ddp-w2", "zero2-w2"}
    assert set(read_baselines(tmp_path / FILE).cells) == set(cells)
    assert cells["zero2-w2"]["provenance"]["reason"] == "first of all"
    assert cells["zero2-w2"]["metrics"]["live_bytes"]["launches"] == [500, 500, 500]


def test_recording_without_measurements_writes_no_file(tmp_path: Path) -> None:
    assert record(tmp_path) == {}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="equal"),
        pytest.param({"train_seconds": (0.51, 0.52)}, id="seconds within their tolerance"),
        pytest.param({"environment": {"torch": "2.14.0"}}, id="other software, same numbers"),
    ],
)
def test_recording_of_expected_values_keeps_file_identical(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    record(tmp_path, in_all(DDP), in_all(ZERO2))
    before = (tmp_path / FILE).read_bytes()
    record(tmp_path, in_all(DDP), in_all(ZERO2, **changes), reason="second")
    assert (tmp_path / FILE).read_bytes() == before


def test_changed_metric_updates_only_its_entry_and_provenance(tmp_path: Path) -> None:
    before = record(tmp_path, in_all(DDP), in_all(ZERO2))
    changed = in_all(ZERO2, memory=a_memory(1000, eval=900), train_seconds=(0.51, 0.51))
    after = record(tmp_path, in_all(DDP), changed, reason="second")
    assert after["ddp-w2"] == before["ddp-w2"]
    old, new = before["zero2-w2"], after["zero2-w2"]
    assert new["settings"] == old["settings"]
    assert new["provenance"]["reason"] == "second"
    names = {name for name in new["metrics"] if new["metrics"][name] != old["metrics"][name]}
    assert names == {"peak_eval_bytes"}
    assert new["metrics"]["peak_eval_bytes"]["value"] == 900


@pytest.mark.parametrize("peak", [900, 1001])
def test_better_and_worse_values_are_both_recorded(tmp_path: Path, peak: int) -> None:
    record(tmp_path, in_all(ZERO2))
    cells = record(tmp_path, in_all(ZERO2, memory=a_memory(peak)))
    assert cells["zero2-w2"]["metrics"]["peak_allocated_bytes"]["value"] == peak


def test_cell_with_other_settings_is_recorded_completely(tmp_path: Path) -> None:
    record(tmp_path, in_all(ZERO2))
    cells = record(tmp_path, in_all(ZERO2, workload_version=2, train_seconds=(0.51, 0.51)))
    assert cells["zero2-w2"]["settings"]["workload_version"] == 2
    assert cells["zero2-w2"]["metrics"]["epoch_seconds"]["value"] == 0.51


def test_metric_no_longer_measured_is_removed(tmp_path: Path) -> None:
    record(tmp_path, in_all(ZERO2, quality={"f1": 0.8, "accuracy": 0.9}))
    cells = record(tmp_path, in_all(ZERO2, quality={"f1": 0.8}))
    assert "accuracy" not in cells["zero2-w2"]["metrics"]
    assert "f1" in cells["zero2-w2"]["metrics"]


def test_unmeasured_cells_are_kept(tmp_path: Path) -> None:
    before = record(tmp_path, in_all(DDP), in_all(ZERO3))
    after = record(tmp_path, in_all(ZERO2))
    assert set(after) == {"ddp-w2", "zero2-w2", "zero3-w2"}
    assert {key: after[key] for key in before} == before


def test_cell_out_of_parity_is_not_recorded(tmp_path: Path) -> None:
    before = record(tmp_path, in_all(DDP), in_all(ZERO2))
    after = record(
        tmp_path,
        in_all(DDP),
        in_all(ZERO2, memory=a_memory(5000)),
        in_all(ZERO3),
        verdicts=[parity(ZERO2, "regressed"), parity(ZERO3, "ok")],
    )
    assert after["zero2-w2"] == before["zero2-w2"]
    assert "zero3-w2" in after


def test_speedup_is_recorded_only_with_measured_ddp(tmp_path: Path) -> None:
    cells = record(
        tmp_path,
        in_all(DDP, train_seconds=(3.0, 3.0)),
        in_all(ZERO2, train_seconds=(2.0, 2.0)),
        in_all(a_cell("zero2", world_size=4)),
    )
    assert cells["zero2-w2"]["metrics"]["speedup_over_ddp"]["value"] == 1.5
    assert "speedup_over_ddp" not in cells["ddp-w2"]["metrics"]
    assert "speedup_over_ddp" not in cells["zero2-w4"]["metrics"]


def test_baselines_after_recording_nan_can_be_read(tmp_path: Path) -> None:
    record(tmp_path, in_all(DDP, gradient_norm=(float("nan"), 1.0)))
    read_baselines(tmp_path / FILE)


def test_commit_is_marked_if_files_other_than_baselines_differ(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True)

    def commit() -> str:
        (tmp_path / FILE).unlink(missing_ok=True)
        return str(record(tmp_path, in_all(ZERO2))["zero2-w2"]["provenance"]["commit"])

    source, recorded = tmp_path / "configs.yaml", tmp_path / "baselines" / "old.json"
    recorded.parent.mkdir()
    for path in (source, recorded):
        path.write_text("old")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    recorded.write_text("new")
    assert re.fullmatch("[0-9a-f]{10}", commit())
    source.write_text("new")
    assert re.fullmatch("[0-9a-f]{10}[+]", commit())


def test_unfit_names_cells_with_reason(tmp_path: Path) -> None:
    diverged = in_all(DDP, gradient_norm=(float("nan"), 1.0))
    session = measured_by(tmp_path, diverged, in_all(ZERO2), verdicts=[parity(ZERO2, "regressed")])
    assert unfit(session) == {
        DDP: "gradient_norm is not finite",
        ZERO2: "loss_parity does not hold",
    }


def test_gpu_cell_out_of_parity_is_recorded(tmp_path: Path) -> None:
    """Dropout and half precision make of each strategy another run: nothing would ever be recorded."""
    ddp, zero2 = (a_cell(name, tier="gpu") for name in ("ddp", "zero2"))
    other = {"loss": (0.7, 0.61, 0.52, 0.43, 0.34, 0.25)}
    cells = record(tmp_path, in_all(ddp), in_all(zero2, **other))
    assert set(cells) == {"ddp-w2", "zero2-w2"}


THROTTLED = ("rank 0: it was throttled", "rank 1: it was throttled")


def throttled() -> Measurement:
    return in_all(ZERO2, device_events=THROTTLED, train_seconds=(9.0, 9.0), memory=a_memory(900))


def test_seconds_of_throttled_device_are_not_recorded(tmp_path: Path) -> None:
    before = record(tmp_path, in_all(DDP), in_all(ZERO2))["zero2-w2"]["metrics"]
    slow = throttled()
    after = record(tmp_path, in_all(DDP), slow)["zero2-w2"]["metrics"]
    for name in ("epoch_seconds", "samples_per_second", "speedup_over_ddp"):
        assert after[name] == before[name], name
    assert after["peak_allocated_bytes"]["value"] == 900


def test_batch_sizes_found_beside_other_process_are_not_recorded(tmp_path: Path) -> None:
    found = {"max_micro_batch_size": 4, "batch_budget_bytes": 1000}
    first = replace(in_all(ZERO2), searched=found | {"max_micro_batch_size": 8})
    before = record(tmp_path, first)["zero2-w2"]["metrics"]
    beside = replace(in_all(ZERO2), searched=found, probe_other_processes=(77,))
    assert record(tmp_path, beside)["zero2-w2"]["metrics"] == before


def test_record_baselines_returns_reason_for_unrecorded_seconds(tmp_path: Path) -> None:
    session = measured_by(tmp_path, throttled())
    _, left = record_baselines(session, "why")
    assert left == {ZERO2: "no seconds: rank 0: it was throttled; rank 1: it was throttled"}


CARD = replace(ZERO2, tier="gpu")


def on_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, *measurements: Measurement
) -> dict[str, Any]:
    """What is recorded of a card in that host."""
    monkeypatch.setattr(recording, "host_key", lambda: host)
    cell: dict[str, Any] = record(tmp_path, *measurements)["zero2-w2"]
    return cell


def test_seconds_of_other_host_are_recorded_within_tolerance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_host(tmp_path, monkeypatch, "host-a", in_all(CARD, train_seconds=(0.5, 0.5)))
    found = on_host(tmp_path, monkeypatch, "host-b", in_all(CARD, train_seconds=(0.51, 0.51)))
    assert found["provenance"]["software"]["host"] == "host-b"
    assert found["metrics"]["epoch_seconds"]["value"] == 0.51


def test_seconds_keep_host_if_new_device_is_throttled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_host(tmp_path, monkeypatch, "host-a", in_all(CARD, train_seconds=(0.5, 0.5)))
    hot = in_all(CARD, device_events=THROTTLED, train_seconds=(9.0, 9.0), memory=a_memory(10**8))
    found = on_host(tmp_path, monkeypatch, "host-b", hot)
    assert found["provenance"]["software"]["host"] == "host-a"
    assert found["metrics"]["epoch_seconds"]["value"] == 0.5
    assert found["metrics"]["peak_allocated_bytes"]["value"] == 10**8


def test_speedup_over_not_comparable_ddp_is_not_recorded(tmp_path: Path) -> None:
    searched = {"max_micro_batch_size": 4, "samples_per_second_at_max": 10.0}
    ddp = replace(in_all(DDP), searched=searched, probe_other_processes=(77,))
    own = replace(in_all(ZERO2), searched=searched | {"samples_per_second_at_max": 150.0})
    assert "speedup_over_ddp_at_max" not in record(tmp_path, ddp, own)["zero2-w2"]["metrics"]


def test_cell_with_infinite_search_result_is_not_recorded(tmp_path: Path) -> None:
    wild = replace(in_all(ZERO2), searched={"samples_per_second_at_max": float("inf")})
    _, left = record_baselines(measured_by(tmp_path, wild), "why")
    assert left == {ZERO2: "samples_per_second_at_max is not finite"}


def test_cell_with_launches_of_different_length_is_not_recorded(tmp_path: Path) -> None:
    short = a_measurement(ZERO2, loss=(1.0,) * 5).launches
    odd = replace(in_all(ZERO2), launches=(*in_all(ZERO2).launches, *short))
    _, left = record_baselines(measured_by(tmp_path, odd), "why")
    assert left == {ZERO2: "its launches took different numbers of steps"}
