"""What the training set counts: samples drawn, over epochs and ranks, and batches still held."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from zerogate.worker.sample_audit import CountedSamples


@pytest.fixture
def samples() -> CountedSamples:
    # What the stack warns about when it is imported is not what is tested.
    with warnings.catch_warnings(action="ignore"):
        import torch

        from zerogate.worker.sample_audit import CountedSamples

    def collate(rows: list[Any]) -> dict[str, torch.Tensor]:
        return {"ids": torch.tensor(rows)}

    return CountedSamples([10, 20, 30, 40], collate)


def miscounts(samples: CountedSamples, padding: int = 0) -> tuple[int, int]:
    import torch

    return samples.miscounts(padding, torch.device("cpu"))


def test_samples_drawn_once_have_no_miscounts(samples: CountedSamples) -> None:
    assert samples.__getitems__([2, 0]) == [30, 10]
    assert [samples[1], samples[3]] == [20, 40]
    assert miscounts(samples) == (0, 0)


def test_missed_and_repeated_samples_are_counted(samples: CountedSamples) -> None:
    samples.__getitems__([0, 0, 1])
    assert miscounts(samples) == (2, 1)


def test_repeated_samples_within_padding_are_not_counted(samples: CountedSamples) -> None:
    samples.__getitems__([0, 1, 2, 3, 0, 1])
    assert miscounts(samples, padding=2) == (0, 0)
    assert miscounts(samples, padding=1) == (0, 1)


def test_miscounts_are_taken_from_worst_epoch(samples: CountedSamples) -> None:
    samples.__getitems__([0, 1, 2, 3])
    samples.begin_epoch()
    samples.__getitems__([0, 1, 2])
    assert miscounts(samples) == (1, 0)


def test_counted_samples_use_batch_fetch_of_dataset(samples: CountedSamples) -> None:
    class Many(list[int]):
        def __getitems__(self, indices: list[int]) -> list[int]:
            return [-1 for _ in indices]

    samples.samples = Many([1, 2])
    assert samples.__getitems__([0, 1]) == [-1, -1]


def test_held_bytes_are_zero_after_batch_is_deleted(samples: CountedSamples) -> None:
    import torch

    device = torch.device("cpu")
    batch = samples.collate([1, 2, 3])
    assert samples.held_bytes(device) == 24
    del batch
    assert samples.held_bytes(device) == 0


def test_held_bytes_count_host_and_device_apart(samples: CountedSamples) -> None:
    import torch

    host, device = torch.device("cpu"), torch.device("meta")
    fetched = samples.collate([1, 2, 3])
    moved = samples.hold({name: values.to(device) for name, values in fetched.items()})
    assert samples.held_bytes(host) == samples.held_bytes(device) == 24
    del fetched
    assert (samples.held_bytes(host), samples.held_bytes(device)) == (0, 24)
    del moved
    assert samples.held_bytes(device) == 0


@pytest.mark.parametrize(
    "gather",
    [
        lambda rows: rows,
        lambda rows: (rows, rows[:1]),
        lambda rows: [rows, rows],
        lambda rows: {"answers": rows, "labels": rows},
        lambda rows: [str(row) for row in rows],
        lambda rows: [int(row) for row in rows],
    ],
)
def test_rows_of_counts_rows_in_any_gathered_structure(
    samples: CountedSamples, gather: Any
) -> None:
    import torch

    from zerogate.worker.sample_audit import rows_of

    assert rows_of(gather(torch.arange(3))) == 3


def test_held_bytes_count_shared_memory_once(samples: CountedSamples) -> None:
    import torch

    ids = torch.tensor([1, 2, 3])
    samples._collate = lambda rows: {"input_ids": ids, "labels": ids}
    batch = samples.collate([])
    assert samples.held_bytes(torch.device("cpu")) == 24
    assert batch["labels"] is ids
