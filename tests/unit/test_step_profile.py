"""Collectives as the profiler saw them: kinds, calls, bytes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass
class Event:
    """Of a profiler: its name, and the shapes and types of what it was given."""

    label: str
    inputs: tuple[tuple[tuple[int, ...], str], ...] = ()

    def name(self) -> str:
        return self.label

    def shapes(self) -> list[tuple[int, ...]]:
        return [shape for shape, _ in self.inputs]

    def dtypes(self) -> list[str]:
        return [dtype for _, dtype in self.inputs]


@pytest.fixture(autouse=True)
def _imported() -> None:
    # What the stack warns about when it is imported is not what is tested.
    with warnings.catch_warnings(action="ignore"):
        import zerogate.worker.step_profile  # noqa: F401


def counted(*events: Event) -> dict[str, tuple[int, int]]:
    from zerogate.worker.step_profile import collectives

    found: dict[str, Any] = collectives(events)
    return {kind: (one.calls, one.payload_bytes) for kind, one in found.items() if one.calls}


def test_collectives_are_summed_by_kind() -> None:
    assert counted(
        Event("gloo:all_reduce", (((10, 3), "float"),)),
        Event("gloo:all_reduce", (((5,), "c10::BFloat16"),)),
        Event("nccl:all_gather", (((7,), "long int"),)),
    ) == {"all_reduce": (2, 130), "all_gather": (1, 56)}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nccl:_all_gather_base", "all_gather"),
        ("nccl:_reduce_scatter_base", "reduce_scatter"),
        ("nccl:reduce_scatter_tensor_coalesced", "reduce_scatter"),
        ("nccl:all_gather_into_tensor_coalesced", "all_gather"),
        ("nccl:allreduce_coalesced", "all_reduce"),
        ("nccl:broadcast", "broadcast"),
        ("nccl:reduce", "other_collective"),
        ("nccl:all_to_all", "other_collective"),
    ],
)
def test_backend_names_map_to_collective_kind(name: str, kind: str) -> None:
    assert counted(Event(name, (((2,), "float"),))) == {kind: (1, 8)}


def test_collective_of_tensor_list_counts_all_tensors() -> None:
    event = Event("gloo:all_reduce", (((3,), "float"), ((4,), "float")))
    assert counted(event) == {"all_reduce": (1, 28)}


def test_collective_without_own_kind_is_counted_as_other() -> None:
    events = (Event("gloo:barrier"), Event("gloo:reduce", (((2,), "float"),)))
    assert counted(*events) == {"other_collective": (2, 8)}


@pytest.mark.parametrize("name", ["aten::add", "c10d::allreduce_", "gloo", "Optimizer.step"])
def test_events_other_than_collectives_are_not_counted(name: str) -> None:
    assert counted(Event(name, (((2,), "float"),))) == {}
