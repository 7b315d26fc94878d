"""Slower, not slower, or nobody can tell yet: from launches that were made in turn."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerogate.verdicts.paired_test import MARGIN, compare

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
def test_the_three_answers(own: list[float], theirs: list[float], answer: str) -> None:
    assert compare(own, theirs).answer == answer


def test_a_machine_that_grows_slower_is_neither_sides_fault() -> None:
    drift = [1.0, 1.3, 1.9, 2.4]
    found = compare([1.01 * one for one in drift], drift)
    assert found.answer == "not slower"
    assert found.ratio == pytest.approx(1.01)


def test_the_interval_is_students() -> None:
    """Logarithms -0.1, 0 and 0.1: mean 0, deviation 0.1, and t of 2 degrees of freedom is 4.3027."""
    found = compare([math.exp(one) for one in (-0.1, 0.0, 0.1)], [1.0, 1.0, 1.0])
    half = 4.302652729911275 * 0.1 / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((math.exp(-half), math.exp(half)))


def test_how_many_more_pairs_would_tell() -> None:
    own = [0.9, 1.0, 1.1]
    found = compare(own, [1.0] * 3)
    assert found.answer == "cannot tell"
    assert found.pairs_more is not None
    more = (own * 100)[: 3 + found.pairs_more]
    assert compare(more, [1.0] * len(more)).answer == "not slower"


def test_where_it_lies_at_the_margin_no_number_would_do() -> None:
    limit = 1.0 + MARGIN
    found = compare([limit * 1.01, limit / 1.01], [1.0, 1.0])
    assert (found.answer, found.pairs_more) == ("cannot tell", None)


@given(PAIRS)
def test_the_other_way_round_is_the_inverse(pairs: list[tuple[float, float]]) -> None:
    own, theirs = zip(*pairs, strict=True)
    there, back = compare(own, theirs), compare(theirs, own)
    assert there.ratio == pytest.approx(1 / back.ratio)
    assert not there.answer == back.answer == "slower"


def test_equal_sides_are_hardly_ever_called_slower() -> None:
    """With the spread that whole launches have: 4 %."""
    draw = random.Random(25)

    def launches(number: int) -> list[float]:
        return [math.exp(draw.gauss(0.0, 0.04)) for _ in range(number)]

    for number in (2, 3, 5):
        wrong = sum(
            compare(launches(number), launches(number)).answer == "slower" for _ in range(1000)
        )
        assert wrong <= 10, f"{wrong} of 1000 with {number} pairs"
