"""Which of several packages that changed together a change comes from. Pure: it asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise


def ddmin(packages: Sequence[str], is_bad: Callable[[Sequence[str]], bool]) -> list[str]:
    """Of ``packages``, which are bad together, some that are bad and would not be without any one.

    Halves are asked for first, then what is left without each, then smaller groups: Zeller and
    Hildebrandt's ddmin (doi 10.1109/32.988498). What cannot run counts as not bad.
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
    """``count`` groups of neighbours, as equal as may be."""
    bounds = [len(packages) * one // count for one in range(count + 1)]
    return [list(packages[low:high]) for low, high in pairwise(bounds)]
