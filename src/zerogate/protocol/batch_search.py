"""Search for the largest size that fits in memory, by ask and tell. Sizes and peaks in, sizes out.

A probe launch tries sizes in one process group until one runs out of memory, which ends it. The
result of its first size is certain. The result of a later one may depend on the sizes before it (a
fragmented cache): a late failure is a hint, which the search tries again in a fresh launch. Both
sides of the answer are certified in launches of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

GALLOP = 16
"""Largest ratio of the next size to the last one: memory curves have kinks."""

SURPRISES = 2
"""Number of fresh launches that contradict the line of peaks, after which the search leaves it."""

LINE_LAUNCHES = 6
"""Number of launches after which it leaves the line of peaks in any case: a curve can mislead it
without contradicting it.
"""


@dataclass(frozen=True, slots=True)
class Probe:
    """A launch to make: it tries ``sizes`` in that order, then ever larger ones below ``stop``.

    Without ``stop`` it tries no larger ones.
    """

    sizes: tuple[int, ...]
    stop: int | None = None


class Tried(NamedTuple):
    """A size that fit: its peak, the bytes held after its forward pass, and the allocator's limit."""

    size: int
    peak_bytes: int
    forward_bytes: int
    limit_bytes: int


def next_size(tried: Sequence[Tried], stop: int) -> int | None:
    """Return the size to try next in the same process group; None if there is none below ``stop``.

    A size that fits costs three steps; one that does not costs the launch. So the next size stays
    below the one whose peak would meet the limit. The bytes held after the forward pass grow
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
            step = int((last.limit_bytes - last.peak_bytes) / steepest * share)
            if whole < forward / 20:
                step = max(step, int((last.limit_bytes - last.forward_bytes) / forward / 2))
        step = min(step, (GALLOP - 1) * last.size)
    return min(last.size + max(1, step), stop - 1)


def fitted_size(tried: Iterable[Tried]) -> int | None:
    """Return the largest size that fits by the line through the two largest sizes in ``tried``.

    Where peaks do not grow yet, it is the line of the bytes held after the forward pass, which meets
    the limit later than the peaks will. None if nothing grows, or for fewer than two sizes.
    """
    if len(largest := sorted(tried)[-2:]) < 2:
        return None
    before, last = largest
    forward = last.forward_bytes - before.forward_bytes
    rise = max(forward, last.peak_bytes - before.peak_bytes)
    room = last.limit_bytes - last.peak_bytes
    if last.peak_bytes - before.peak_bytes < forward / 20:
        room = last.limit_bytes - last.forward_bytes
    if rise <= 0:
        return None
    return last.size + max(0, room) * (last.size - before.size) // rise


@dataclass
class Search:
    """Search for the largest size up to ``limit`` that fits.

    ``guess`` is the size to try first, from a baseline. The answer is 0 if not even 1 fits.
    """

    limit: int
    guess: int | None = None
    launches: int = 0
    _surprises: int = 0
    _narrowing: int = 0  # launches since the search left the line of peaks
    _misled: int = 0  # fresh launches in which a size ran out that had fitted late
    _fits: dict[int, bool] = field(default_factory=dict)  # size -> whether in a fresh launch
    _failed: set[int] = field(default_factory=set)  # in fresh launches
    _failed_late: set[int] = field(default_factory=set)
    _tried: dict[int, Tried] = field(default_factory=dict)

    @property
    def low(self) -> int:
        """The largest size that is known to fit."""
        return max(self._fits, default=0)

    @property
    def high(self) -> int:
        """The smallest size that ran out of memory in a fresh launch."""
        return min(self._failed, default=self.limit + 1)

    @property
    def answer(self) -> int | None:
        """The largest size that fits; None until that is certain."""
        return self.low if self.ask() is None else None

    def ask(self) -> Probe | None:
        """Return the next launch to make; None when the answer is certified."""
        low, high = self.low, self.high
        if high - low > 1:
            return self._narrow(low, high)
        return certificate(low) if low and not self._fits[low] else None

    def _narrow(self, low: int, high: int) -> Probe:
        """Return a launch whose first size is between ``low`` and ``high``, or certifies ``low``."""
        if not self.launches:
            first = min(self.guess or 1, self.limit)
            return certificate(first, stop=None if self.guess else high)
        if self._narrowing:
            beyond = min(low + 4**self._narrowing, self.limit)
            return certificate((low + high) // 2 if self._failed else beyond, stop=high)
        fitted, hint = fitted_size(self._tried.values()), self._hint
        if self.launches == 1 and low == self.guess:
            fitted = low  # A baseline's size is expected to be the answer still.
        if fitted is None and hint is None:
            return certificate(low + 1, stop=high)
        # A late failure that the line explains is not tried again; one that it does not explain is.
        size = min(one for one in (fitted, hint) if one is not None)
        size = min(max(size, low), high - 1)
        if self._fits.get(size):
            size += 1
        return certificate(size, stop=None if size == fitted else high)

    @property
    def _hint(self) -> int | None:
        """The smallest size that ran out late and that no fresh launch has decided.

        None once a fresh launch has shown that the cache is fragmented: then late failures say little.
        """
        if any(size <= self.low for size in self._failed_late):
            return None
        return min((size for size in self._failed_late if size < self.high), default=None)

    def tell(self, probe: Probe, tried: Sequence[Tried], failed: int | None) -> None:
        """Add the result of a launch: the sizes that fit, and the one that ran out, if any."""
        self.launches += 1
        first, fitted = probe.sizes[0], fitted_size(self._tried.values())
        self._surprises += fitted is not None and (first > fitted) == bool(tried)
        self._misled += failed == first and any(size >= first for size in self._fits)
        misled = self._misled >= SURPRISES
        self._narrowing += self._surprises >= SURPRISES or misled or self.launches >= LINE_LAUNCHES
        for one in tried:
            self._fits[one.size] = self._fits.get(one.size, False) or one.size == first
            self._tried[one.size] = one
        if misled:  # Late fits say nothing here: only fresh launches count.
            self._fits = {size: fresh for size, fresh in self._fits.items() if fresh}
        if failed is not None:
            (self._failed if failed == first else self._failed_late).add(failed)
        # If fresh launches contradict each other, the failure counts: it may happen again.
        self._fits = {size: fresh for size, fresh in self._fits.items() if size < self.high}


def certificate(size: int, stop: int | None = None) -> Probe:
    """Return a fresh launch of ``size`` and then half of it: two points of the line of peaks."""
    return Probe((size, size // 2) if size > 1 else (size,), stop)
