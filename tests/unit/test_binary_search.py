"""The first bad release, whatever cannot run in between."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerogate.releases.binary_search import BinarySearch


def run(releases: list[str], first_bad: int, skipped: frozenset[int] = frozenset()) -> BinarySearch:
    found = BinarySearch(releases)
    while (asked := found.ask()) is not None:
        assert asked not in found.answers, "nothing is tried twice"
        index = releases.index(asked)
        bad = "bad" if index >= first_bad else "good"
        found.tell(asked, "skipped" if index in skipped else bad)
    return found


def names(count: int) -> list[str]:
    return [f"0.{index}" for index in range(count)]


@given(st.integers(2, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n - 1))))
def test_bisection_finds_first_bad_release_in_log2_evaluations(case: tuple[int, int]) -> None:
    count, first_bad = case
    found = run(names(count), first_bad)
    assert (found.first_bad, found.last_good) == (f"0.{first_bad}", f"0.{first_bad - 1}")
    assert len(found.answers) <= 2 + math.ceil(math.log2(count))


@given(
    st.integers(3, 30).flatmap(
        lambda n: st.tuples(st.just(n), st.integers(1, n - 1), st.frozensets(st.integers(1, n - 2)))
    )
)
def test_bisection_lists_skipped_releases_between_good_and_bad(
    case: tuple[int, int, frozenset[int]],
) -> None:
    count, first_bad, skipped = case
    found = run(names(count), first_bad, skipped)
    low, high = (found.releases.index(one) for one in (found.last_good, found.first_bad))
    assert low < first_bad <= high
    assert all(int(one[2:]) in skipped for one in found.skipped)
    assert len(found.skipped) == high - low - 1


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"0.0": "skipped"}, "0.0 should be good but cannot be measured"),
        ({"0.0": "good", "0.2": "skipped"}, "0.2 should be bad but cannot be measured"),
        ({"0.0": "good", "0.2": "good"}, "0.2 should be bad but measures the same as 0.0"),
    ],
)
def test_bisection_with_unusable_ends_names_problem(told: dict[str, str], problem: str) -> None:
    found = BinarySearch(names(3), dict(told))  # type: ignore[arg-type]
    if len(told) == 2:
        assert found.ask() is None
    assert found.problem == problem
