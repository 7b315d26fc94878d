"""Search for the largest size that fits in memory, by ask and tell. Sizes and peaks in, sizes out.

A probe launch tries sizes in one process group until one runs out of memory, which ends it. The
result of its first size is certain. The result of a later one may depend on the sizes before it (a
fragmented cache), so both sides of the answer are certified in launches of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

GALLOP = 16
"""Largest ratio of the next size to the last one: memory curves have kinks."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A launch to make: it tries ``sizes`` in that order, then ever larger ones below ``stop``.

    Without ``stop`` it tries no larger ones.
    """

    sizes: tuple[int, ...]
    stop: int | None = None


class Tried(NamedTuple):
    """A size that fit: its peak, and the bytes held after its forward pass."""

    size: int
    peak_bytes: int
    forward_bytes: int


def next_size(tried: Sequence[Tried], budget_bytes: int, stop: int) -> int | None:
    """Return the size to try next in the same process group; None if there is none below ``stop``.

    A size that fits costs three steps; one that does not costs the launch. So the next size stays
    below the one whose peak would meet the budget. The bytes held after the forward pass grow
    linearly from the first sample on. Peaks grow at the same rate once activations outweigh the
    memory that every size needs.
    """
    *_, before, last = [None, *sorted(tried)]
    assert last is not None
    if last.size + 1 >= stop:
        return None
    step = last.size
    if before is not None:
        wider = last.size - before.size
        forward = (last.forward_bytes - before.forward_bytes) / wider
        whole = (last.peak_bytes - before.peak_bytes) / wider
        if (steepest := max(forward, whole)) > 0:
            # A long step may span a kink, and beyond it peaks rise faster than the step shows.
            share = 1 / 2 if wider > before.size else 7 / 8
            step = int((budget_bytes - last.peak_bytes) / steepest * share)
            if whole < forward / 20:
                step = max(step, int((budget_bytes - last.forward_bytes) / forward / 2))
        step = min(step, (GALLOP - 1) * last.size)
    return min(last.size + max(1, step), stop - 1)


@dataclass
class Search:
    """Search for the largest size up to ``limit`` that fits.

    ``guess`` is the size to try first, from a baseline. The answer is 0 if not even 1 fits.
    """

    limit: int
    guess: int | None = None
    launches: int = 0
    _fits: dict[int, bool] = field(default_factory=dict)  # size -> whether in a fresh launch
    _fails: dict[int, bool] = field(default_factory=dict)
    # Only fresh launches count: a late size ran out that fits in one, or the search takes long.
    _misled: bool = False

    @property
    def low(self) -> int:
        """The largest size that is known to fit."""
        return max(self._fits, default=0)

    @property
    def high(self) -> int:
        """The smallest size that is known not to fit."""
        return min(self._fails, default=self.limit + 1)

    @property
    def answer(self) -> int | None:
        """The largest size that fits; None until that is certain."""
        return self.low if self.ask() is None else None

    def ask(self) -> Probe | None:
        """Return the next launch to make; None when the answer is certified."""
        low, high = self.low, self.high
        if high - low > 1:
            return self._narrow(low, high)
        if low > 0 and not self._fits[low]:
            return certificate(low)
        if high <= self.limit and not self._fails[high]:
            return Probe((high,))
        return None

    def _narrow(self, low: int, high: int) -> Probe:
        if not self._fits and not self._fails:
            return (
                certificate(min(self.guess, self.limit))
                if self.guess
                else certificate(1, stop=high)
            )
        if self._misled:
            return certificate((low + high) // 2)
        if not self._fails:
            return certificate(low + 1, stop=high)
        if self._fits.get(low) and not self._fails[high]:
            return Probe((high,))
        return certificate((low + high) // 2, stop=high)

    def tell(self, probe: Probe, fitted: Sequence[int], failed: int | None) -> None:
        """Add the result of a launch: the sizes that fit, and the one that ran out, if any."""
        self.launches += 1
        first = probe.sizes[0]
        if self._misled:
            fitted, failed = fitted[:1], failed if not fitted else None
        for size in fitted:
            self._fits[size] = self._fits.get(size, False) or size == first
        if failed is not None:
            self._fails[failed] = self._fails.get(failed, False) or failed == first
        # A fresh launch overrides a late result of another one.
        if first in fitted:
            self._misled |= any(not fresh and size <= first for size, fresh in self._fails.items())
            self._fails = {
                size: fresh for size, fresh in self._fails.items() if fresh or size > first
            }
        else:
            self._fits = {
                size: fresh for size, fresh in self._fits.items() if fresh or size < first
            }
        # From here on only bisect: that takes log2 launches more, and the certificates.
        self._misled |= self.launches >= math.log2(self.limit) - 3
        if self._misled:
            self._fails = {size: fresh for size, fresh in self._fails.items() if fresh}
        self._settle()

    def _settle(self) -> None:
        """Let the failure count if fresh launches contradict each other: it may happen again."""
        certain = min((size for size, fresh in self._fails.items() if fresh), default=None)
        if certain is not None:
            self._fits = {size: fresh for size, fresh in self._fits.items() if size < certain}
        self._fails = {size: fresh for size, fresh in self._fails.items() if size > self.low}


def certificate(size: int, stop: int | None = None) -> Probe:
    """Return a fresh launch of ``size`` and then half of it: two points of the line of peaks."""
    return Probe((size, size // 2) if size > 1 else (size,), stop)
