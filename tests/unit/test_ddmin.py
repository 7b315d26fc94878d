"""Which packages it takes, of those that changed together."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from zerogate.releases.ddmin import ddmin

NAMES = [f"p{index}" for index in range(16)]


def asked_for(packages: Sequence[str], guilty: set[str]) -> tuple[list[str], list[Sequence[str]]]:
    """What was found, and what was asked for that."""
    asked: list[Sequence[str]] = []

    def is_bad(some: Sequence[str]) -> bool:
        asked.append(some)
        return guilty <= set(some)

    return ddmin(packages, is_bad), asked


@given(st.sets(st.sampled_from(NAMES), min_size=1), st.data())
def test_ddmin_finds_exactly_responsible_packages(packages: set[str], data: st.DataObject) -> None:
    guilty = data.draw(st.sets(st.sampled_from(sorted(packages)), min_size=1))
    found, _ = asked_for(sorted(packages), guilty)
    assert set(found) == guilty


@given(st.integers(1, 16), st.data())
def test_ddmin_finds_single_package_in_logarithmic_steps(count: int, data: st.DataObject) -> None:
    packages = NAMES[:count]
    guilty = data.draw(st.sampled_from(packages))
    found, asked = asked_for(packages, {guilty})
    assert found == [guilty]
    assert len(asked) <= 2 * math.ceil(math.log2(count))


def test_ddmin_keeps_packages_that_run_only_together() -> None:
    """``b`` is the cause, and cannot run without ``c``."""
    found = ddmin("abcd", lambda some: "b" in some and "c" in some)
    assert found == ["b", "c"]
