"""Two sides measured in turn: is one slower, is it not, or can nobody tell yet. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Answer = Literal["slower", "not slower", "cannot tell"]

MARGIN = 0.05
"""How much slower counts. Whole launches vary by 3 to 4 % among themselves where nothing else runs."""

CONFIDENCE = 0.95
MOST_PAIRS = 100


@dataclass(frozen=True, slots=True)
class Paired:
    """``ratio`` of seconds, own to theirs, and where it lies with CONFIDENCE. ``pairs_more``: how many
    pairs it would take, at this spread, to tell; None where that is more than MOST_PAIRS.
    """

    ratio: float
    low: float
    high: float
    answer: Answer
    pairs_more: int | None = 0


def compare(own: Sequence[float], theirs: Sequence[float]) -> Paired:
    """Seconds of launches that were made in turn, pair by pair.

    The interval is Student's, of the mean of the logarithms of the pairs' ratios: a machine that
    drifts slows both of a pair, and ratios are as far from 1 on either side. It is slower where all of
    the interval lies above 1 + MARGIN, and not slower where all of it lies below.
    """
    logs = [math.log(mine / other) for mine, other in zip(own, theirs, strict=True)]
    mean = statistics.fmean(logs)
    limit = math.log1p(MARGIN)
    if len(logs) < 2:
        return Paired(math.exp(mean), 0.0, math.inf, "cannot tell", _pairs(0.04, mean, limit, 1))
    deviation = statistics.stdev(logs)
    half = _half_width(deviation, len(logs))
    answer: Answer = "cannot tell"
    if mean - half > limit:
        answer = "slower"
    elif mean + half < limit:
        answer = "not slower"
    more = _pairs(deviation, mean, limit, len(logs)) if answer == "cannot tell" else 0
    return Paired(math.exp(mean), math.exp(mean - half), math.exp(mean + half), answer, more)


def _half_width(deviation: float, pairs: int) -> float:
    from scipy.stats import t

    quantile: float = t.ppf((1 + CONFIDENCE) / 2, pairs - 1)
    return quantile * deviation / math.sqrt(pairs)


def _pairs(deviation: float, mean: float, limit: float, made: int) -> int | None:
    for pairs in range(made + 1, MOST_PAIRS + 1):
        if _half_width(deviation, pairs) < abs(mean - limit):
            return pairs - made
    return None
