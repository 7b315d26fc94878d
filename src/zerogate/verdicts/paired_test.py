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
CONFIRMING = 0.99
"""Of pairs that were made because others seemed slower. In a matrix two hundred metrics are looked at:
at 95 % alone some would always seem so.
"""
CONFIRMING_PAIRS = 4
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


def compare_pairs(
    own: Sequence[float], theirs: Sequence[float], confidence: float = CONFIDENCE
) -> Paired:
    """Compare the seconds of launches that were made in turn, pair by pair.

    The interval is Student's, of the mean of the logarithms of the pairs' ratios: a machine that
    drifts slows both of a pair, and ratios are as far from 1 on either side. It is slower where all of
    the interval lies above 1 + MARGIN, and not slower where all of it lies below.
    """
    logs = [math.log(mine / other) for mine, other in zip(own, theirs, strict=True)]
    mean = statistics.fmean(logs)
    limit = math.log1p(MARGIN)
    if len(logs) < 2:
        more = _pairs(0.04, mean, limit, 1, confidence)
        return Paired(math.exp(mean), 0.0, math.inf, "cannot tell", more)
    deviation = statistics.stdev(logs)
    half = _half_width(deviation, len(logs), confidence)
    answer: Answer = "cannot tell"
    if mean - half > limit:
        answer = "slower"
    elif mean + half < limit:
        answer = "not slower"
    more = 0
    if answer == "cannot tell":
        more = _pairs(deviation, mean, limit, len(logs), confidence)
    return Paired(math.exp(mean), math.exp(mean - half), math.exp(mean + half), answer, more)


def _half_width(deviation: float, pairs: int, confidence: float) -> float:
    from scipy.stats import t

    _, quantile = t.interval(confidence, pairs - 1)
    return float(quantile) * deviation / math.sqrt(pairs)


def _pairs(deviation: float, mean: float, limit: float, made: int, confidence: float) -> int | None:
    for pairs in range(made + 1, MOST_PAIRS + 1):
        if _half_width(deviation, pairs, confidence) < abs(mean - limit):
            return pairs - made
    return None
