"""The wire: every field that ranks write is read by the controller, and old records still are."""

from __future__ import annotations

import ast
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from records import a_record, a_trace

import zerogate
from zerogate.launch.record_file import read_record
from zerogate.protocol.atomic_write import write_json
from zerogate.protocol.record import (
    Collective,
    Crossings,
    Device,
    Failure,
    HostMemory,
    PhaseMemory,
    Probed,
    RankRecord,
    Traced,
    record_path,
)

SOURCE = Path(zerogate.__file__).parent
RANKS_ROOMS = ("worker", "protocol")
OLD = Path(__file__).parents[1] / "data" / "nvml" / "two_devices" / "rank0.json"
"""A record of version 1."""


def names_in(path: Path) -> set[str]:
    """Attributes and strings in a file: aggregation reads fields by either."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


READ = {
    name
    for path in SOURCE.rglob("*.py")
    if path.relative_to(SOURCE).parts[0] not in RANKS_ROOMS
    for name in names_in(path)
}


@pytest.mark.parametrize(
    "kind",
    [RankRecord, Device, Failure, PhaseMemory, HostMemory, Traced, Collective, Crossings, Probed],
)
def test_every_field_of_record_is_read_by_controller(kind: Any) -> None:
    assert {field.name for field in fields(kind)} <= READ


def test_record_of_version_1_is_read_without_its_old_fields(tmp_path: Path) -> None:
    old = json.loads(OLD.read_text())
    assert old["schema_version"] == 1
    old["device"] |= {"strangers": [77], "troubles": ["it was throttled"], "peak_bytes": 5}
    old |= {"eval_samples": 16, "accelerate_environment": {"A": "1"}}
    write_json(record_path(tmp_path, 0), old)
    found = read_record(record_path(tmp_path, 0))
    assert found.schema_version == 2
    assert found.loss == tuple(old["loss"])
    assert found.device is not None
    assert found.device.uuid == old["device"]["uuid"]


def test_record_of_version_2_with_old_field_is_refused(tmp_path: Path) -> None:
    path = record_path(tmp_path, 0)
    write_json(path, a_record())
    path.write_text(path.read_text().replace('"rank": 0', '"eval_samples": 3, "rank": 0'))
    with pytest.raises(ValueError, match="eval_samples"):
        read_record(path)


@pytest.mark.parametrize("counted", [True, False], ids=["counted", "not counted"])
def test_record_with_and_without_host_memory_is_read_as_written(
    tmp_path: Path, counted: bool
) -> None:
    record = a_record()
    if not counted:  # On a card.
        memory = {name: replace(one, host=None) for name, one in record.memory.items()}
        traced = a_trace(crossings=None)
        record = a_record(memory=memory, traced=traced, step_host_bytes=())
    write_json(record_path(tmp_path, 0), record)
    assert read_record(record_path(tmp_path, 0)) == record


def test_record_from_before_host_memory_was_counted_is_read(tmp_path: Path) -> None:
    path = record_path(tmp_path, 0)
    write_json(path, a_record())
    old = json.loads(path.read_text())
    del old["step_host_bytes"], old["traced"]["crossings"]
    for phase in old["memory"].values():
        del phase["host"]
    write_json(path, old)
    found = read_record(path)
    assert found.traced is not None
    assert (found.traced.crossings, found.step_host_bytes) == (None, ())
    assert {one.host for one in found.memory.values()} == {None}


@pytest.mark.parametrize(
    ("of", "wrong"),
    [("host", {"peak_bytes": 1}), ("crossings", {"host_waits": 1.5}), ("crossings", {"more": 1})],
)
def test_record_with_damaged_host_counts_is_refused(
    tmp_path: Path, of: str, wrong: dict[str, Any]
) -> None:
    path = record_path(tmp_path, 0)
    write_json(path, a_record())
    old = json.loads(path.read_text())
    if of == "host":
        old["memory"]["steady"]["host"] = wrong
    else:
        old["traced"]["crossings"] |= wrong
    write_json(path, old)
    with pytest.raises(ValueError, match=of):
        read_record(path)
