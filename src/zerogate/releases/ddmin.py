"""The packages that cause a change, among several that changed. Pure: the caller evaluates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise


def ddmin(packages: Sequence[str], is_bad: Callable[[Sequence[str]], bool]) -> list[str]:
    """Return some of ``packages`` that are bad together, and would not be without any one of them.

    ``packages`` must be bad together. Halves are evaluated first, then all but one group, then
    smaller groups: Zeller and Hildebrandt's ddmin (doi 10.1109/32.988498). Packages that cannot run
    count as not bad.
    """
    left, count = list(packages), 2
    while len(left) > 1:
        groups = _split(left, count)
        rests = [[one for one in left if one not in group] for group in groups]
        for found in [*groups, *(rests if count > 2 else [])]:
            if is_bad(found):
                count = 2 if found in groups else count - 1
                left = found
                break
        else:
            if count == len(left):
                break
            count = min(2 * count, len(left))
    return left


def _split(packages: Sequence[str], count: int) -> list[list[str]]:
    """Return ``count`` groups of neighbours of almost equal size."""
    bounds = [len(packages) * one // count for one in range(count + 1)]
    return [list(packages[low:high]) for low, high in pairwise(bounds)]
