"""Paired test of two sides measured in turn: slower, not slower, or not yet known. Pure functions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Answer = Literal["slower", "not slower", "cannot tell"]

MARGIN = 0.05
"""Relative slowdown that counts. Whole launches vary by 3 to 4 % even if nothing else runs."""

CONFIDENCE = 0.95
CONFIRMING = 0.99
"""Confidence for pairs that were made because earlier ones seemed slower.

A matrix has two hundred metrics. At 95 % some of them would always seem slower by chance.
"""
CONFIRMING_PAIRS = 4
MOST_PAIRS = 100


@dataclass(frozen=True, slots=True)
class Paired:
    """Result of a paired test.

    ``ratio`` is own seconds to theirs; it lies between ``low`` and ``high`` at the given confidence.
    ``pairs_more`` is the number of pairs still missing for an answer, at this spread. It is None if
    that takes more than MOST_PAIRS in all.
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

    The confidence interval is Student's, for the mean of the logarithms of the pairs' ratios. A machine
    that drifts slows both launches of a pair. A ratio and its inverse have logarithms equally far from
    0. ``own`` is slower if the whole interval lies above 1 + MARGIN, and not slower if the whole
    interval lies below. Raises ValueError if the sides differ in length.
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
