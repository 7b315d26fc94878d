"""The largest size that fits in memory: ask and tell. Pure: sizes and peaks in, sizes out.

A probe launch tries sizes in one process group until one runs out of memory, which ends it. What
its first size did is certain; what a later one did may owe something to what came before it (a
fragmented cache), so both sides of the answer are certified in launches of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

GALLOP = 16
"""How many times the last size the next one is at most: memory curves have kinks."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A launch to make: ``sizes`` in that order, then ever larger ones below ``stop``.

    Without ``stop`` there are no larger ones.
    """

    sizes: tuple[int, ...]
    stop: int | None = None


class Tried(NamedTuple):
    """A size that fit: its peak, and what is held when its forward pass is done, in bytes."""

    size: int
    peak_bytes: int
    forward_bytes: int


def next_size(tried: Sequence[Tried], budget_bytes: int, stop: int) -> int | None:
    """The size to try next in the same process group; None when there is none below ``stop``.

    Sizes that fit cost three steps, one that does not costs the launch; so this stops short of
    where the peak would meet the budget. What the forward pass leaves is a line from the first
    sample on; peaks rise as it does once activations outweigh what is needed anyway.
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
            # A long step may span a kink, beyond which peaks rise more steeply than it shows.
            share = 1 / 2 if wider > before.size else 7 / 8
            step = int((budget_bytes - last.peak_bytes) / steepest * share)
            if whole < forward / 20:
                step = max(step, int((budget_bytes - last.forward_bytes) / forward / 2))
        step = min(step, (GALLOP - 1) * last.size)
    return min(last.size + max(1, step), stop - 1)


@dataclass
class Search:
    """Finds the largest size up to ``limit`` that fits.

    ``guess`` is where to look first: what a baseline says. 0 is an answer: not even 1 fits.
    """

    limit: int
    guess: int | None = None
    launches: int = 0
    _fits: dict[int, bool] = field(default_factory=dict)  # size -> in a fresh launch
    _fails: dict[int, bool] = field(default_factory=dict)
    _misled: bool = False  # late sizes ran out that fit afresh, or it takes long: fresh ones count

    @property
    def low(self) -> int:
        """The largest size that is known to fit."""
        return max(self._fits, default=0)

    @property
    def high(self) -> int:
        """The smallest size that is known not to."""
        return min(self._fails, default=self.limit + 1)

    @property
    def answer(self) -> int | None:
        """The largest size that fits; None while that is not certain."""
        return self.low if self.ask() is None else None

    def ask(self) -> Probe | None:
        """The next launch to make; None when the answer is certified."""
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
        """What came of a launch: the sizes that fit, and the one that ran out, if one did."""
        self.launches += 1
        first = probe.sizes[0]
        if self._misled:
            fitted, failed = fitted[:1], failed if not fitted else None
        for size in fitted:
            self._fits[size] = self._fits.get(size, False) or size == first
        if failed is not None:
            self._fails[failed] = self._fails.get(failed, False) or failed == first
        # A fresh launch outdoes what was seen late in another.
        if first in fitted:
            self._misled |= any(not fresh and size <= first for size, fresh in self._fails.items())
            self._fails = {
                size: fresh for size, fresh in self._fails.items() if fresh or size > first
            }
        else:
            self._fits = {
                size: fresh for size, fresh in self._fits.items() if fresh or size < first
            }
        # From here on bisecting alone, which takes log2 launches more, and the certificates.
        self._misled |= self.launches >= math.log2(self.limit) - 3
        if self._misled:
            self._fails = {size: fresh for size, fresh in self._fails.items() if fresh}
        self._settle()

    def _settle(self) -> None:
        """Where fresh launches contradict each other, the failure counts: it may happen again."""
        certain = min((size for size, fresh in self._fails.items() if fresh), default=None)
        if certain is not None:
            self._fits = {size: fresh for size, fresh in self._fits.items() if size < certain}
        self._fails = {size: fresh for size, fresh in self._fails.items() if size > self.low}


def certificate(size: int, stop: int | None = None) -> Probe:
    """``size`` in a fresh launch, and then half of it: two points of the line that peaks follow."""
    return Probe((size, size // 2) if size > 1 else (size,), stop)
