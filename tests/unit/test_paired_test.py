"""Slower, not slower, or nobody can tell yet: from launches that were made in turn."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerogate.verdicts.paired_test import MARGIN, compare_pairs

PAIRS = st.lists(st.tuples(st.floats(0.1, 100.0), st.floats(0.1, 100.0)), min_size=2, max_size=6)


@pytest.mark.parametrize(
    ("own", "theirs", "answer"),
    [
        pytest.param([1.0, 1.01, 0.99], [1.0, 1.0, 1.0], "not slower", id="the same"),
        pytest.param([1.2, 1.21, 1.19], [1.0, 1.0, 1.0], "slower", id="a fifth slower"),
        pytest.param([0.5, 0.52, 0.51], [1.0, 1.0, 1.0], "not slower", id="twice as fast"),
        pytest.param([1.05, 1.06, 1.05], [1.0, 1.0, 1.0], "cannot tell", id="at the margin"),
        pytest.param([1.5, 0.8], [1.0, 1.0], "cannot tell", id="all over the place"),
        pytest.param([3.0], [1.0], "cannot tell", id="one pair"),
    ],
)
def test_compare_answers_slower_not_slower_or_cannot_tell(
    own: list[float], theirs: list[float], answer: str
) -> None:
    assert compare_pairs(own, theirs).answer == answer


def test_compare_is_unaffected_by_machine_drift() -> None:
    drift = [1.0, 1.3, 1.9, 2.4]
    found = compare_pairs([1.01 * one for one in drift], drift)
    assert found.answer == "not slower"
    assert found.ratio == pytest.approx(1.01)


def test_confidence_interval_matches_student_t() -> None:
    """Logarithms -0.1, 0 and 0.1: mean 0, deviation 0.1, and t of 2 degrees of freedom is 4.3027."""
    found = compare_pairs([math.exp(one) for one in (-0.1, 0.0, 0.1)], [1.0, 1.0, 1.0])
    half = 4.302652729911275 * 0.1 / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((math.exp(-half), math.exp(half)))


def test_pairs_more_is_enough_for_decision() -> None:
    own = [0.9, 1.0, 1.1]
    found = compare_pairs(own, [1.0] * 3)
    assert found.answer == "cannot tell"
    assert found.pairs_more is not None
    more = (own * 100)[: 3 + found.pairs_more]
    assert compare_pairs(more, [1.0] * len(more)).answer == "not slower"


def test_pairs_more_at_margin_is_none() -> None:
    limit = 1.0 + MARGIN
    found = compare_pairs([limit * 1.01, limit / 1.01], [1.0, 1.0])
    assert (found.answer, found.pairs_more) == ("cannot tell", None)


@given(PAIRS)
def test_compare_with_swapped_launches_gives_inverse_ratio(
    pairs: list[tuple[float, float]],
) -> None:
    own, theirs = zip(*pairs, strict=True)
    there, back = compare_pairs(own, theirs), compare_pairs(theirs, own)
    assert there.ratio == pytest.approx(1 / back.ratio)
    assert not there.answer == back.answer == "slower"


def test_compare_of_equal_launches_rarely_answers_slower() -> None:
    """With the spread that whole launches have: 4 %."""
    draw = random.Random(25)

    def launches(number: int) -> list[float]:
        return [math.exp(draw.gauss(0.0, 0.04)) for _ in range(number)]

    for number in (2, 3, 5):
        wrong = sum(
            compare_pairs(launches(number), launches(number)).answer == "slower"
            for _ in range(1000)
        )
        assert wrong <= 10, f"{wrong} of 1000 with {number} pairs"
