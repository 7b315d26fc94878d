"""A cell's identity: its id, its key in a baseline file, the cell it is compared with."""

from __future__ import annotations

from dataclasses import replace

import pytest
from records import a_cell

from zerogate.protocol.cell import Cell

CELL = Cell(workload="gpt2xl_wikitext2", strategy="zero3_offload", world_size=4, tier="gpu")


def test_cell_id_names_workload_strategy_world_size_and_tier() -> None:
    assert CELL.id == "gpt2xl_wikitext2-zero3_offload-w4-gpu"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"workload": "deberta_mrpc"}, id="workload"),
        pytest.param({"strategy": "zero3"}, id="strategy"),
        pytest.param({"world_size": 2}, id="world size"),
        pytest.param({"tier": "cpu"}, id="tier"),
    ],
)
def test_cell_with_one_field_changed_has_other_id(change: dict[str, object]) -> None:
    assert replace(CELL, **change).id != CELL.id


def test_cell_key_is_strategy_and_world_size() -> None:
    assert CELL.key == "zero3_offload-w4"


def test_cell_reference_is_ddp_with_other_fields_equal() -> None:
    assert CELL.reference == replace(CELL, strategy="ddp")
    assert CELL.reference.is_reference
    assert not CELL.is_reference


def test_ddp_cell_is_its_own_reference() -> None:
    assert a_cell("ddp").reference == a_cell("ddp")
