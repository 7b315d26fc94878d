"""Audit of the samples that training draws: each one once an epoch, or a rank's loader is wrong."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from accelerate import Accelerator

from zerogate.worker.workload import Batch


class CountedSamples:
    """Training set that counts how often each sample is drawn in each epoch.

    It also knows which micro-batches are still held.
    """

    def __init__(self, samples: Sequence[Any], collate: Callable[[list[Any]], Batch]) -> None:
        self.samples = samples
        self._collate = collate
        self._held: list[weakref.ref[torch.Tensor]] = []
        # Not tensors: those would count as the model's memory.
        self._drawn: list[Counter[int]] = [Counter()]

    def begin_epoch(self) -> None:
        self._drawn.append(Counter())

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        self._drawn[-1][index] += 1
        return self.samples[index]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """Return a micro-batch for ``DataLoader``; ``datasets.Dataset`` is faster with all indices."""
        self._drawn[-1].update(indices)
        if hasattr(self.samples, "__getitems__"):
            found: list[Any] = self.samples.__getitems__(indices)
            return found
        return [self.samples[index] for index in indices]

    def collate(self, samples: list[Any]) -> Batch:
        return self.hold(self._collate(samples))

    def hold(self, batch: Batch) -> Batch:
        """Return ``batch``, a micro-batch on the host or on the rank's device, and remember it."""
        self._held = [one for one in self._held if one() is not None]
        self._held += [weakref.ref(tensor) for tensor in batch.values()]
        return batch

    def held_bytes(self, device: torch.device) -> int:
        """Return the bytes of micro-batches on ``device`` that are still held: Accelerate's loader
        fetches one ahead.
        """
        alive = [tensor for one in self._held if (tensor := one()) is not None]
        storages = (one.untyped_storage() for one in alive if one.device.type == device.type)
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    def miscounts(self, padding: int, device: torch.device) -> tuple[int, int]:
        """Return the samples missed and the samples drawn again beyond ``padding``. Collective.

        Both are counts over all ranks, in the worst epoch. ``padding`` is the number of samples that
        fill an epoch's last global batch.
        """
        drawn = torch.tensor(
            [[epoch[index] for index in range(len(self))] for epoch in self._drawn if epoch],
            device=device,
        )
        if dist.is_initialized():
            dist.all_reduce(drawn)
        missed = (drawn == 0).sum(dim=1)
        again = (drawn - 1).clamp(min=0).sum(dim=1) - padding
        return int(missed.max()), max(0, int(again.max()))


def rows_of(gathered: Any) -> int:
    """Return the number of gathered samples: the first tensor's rows, or the objects of a list."""
    if isinstance(gathered, dict):
        return rows_of(next(iter(gathered.values())))
    nested = isinstance(gathered, tuple | list) and bool(gathered)
    if nested and isinstance(gathered[0], dict | tuple | list | torch.Tensor):
        return rows_of(gathered[0])
    return len(gathered)


@contextmanager
def counted_gathering(accelerator: Accelerator) -> Iterator[list[int]]:
    """Yield a list that gets the rows of each ``gather_for_metrics``: the samples that are scored."""
    gather = accelerator.gather_for_metrics
    rows: list[int] = []

    def counting(data: Any, *arguments: Any, **options: Any) -> Any:
        found = gather(data, *arguments, **options)
        rows.append(rows_of(found))
        return found

    with mock.patch.object(accelerator, "gather_for_metrics", counting):
        yield rows
