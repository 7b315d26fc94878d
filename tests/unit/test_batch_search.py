"""The search for the largest size that fits: exact, whatever the memory curve looks like."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zerogate.protocol.batch_search import Probe, Search, Tried, next_size

LIMIT = 4096


@dataclass
class Machine:
    """Answers probes as ranks do: sizes up to ``fits`` fit in a fresh launch."""

    fits: int
    peak: Callable[[int], float]
    budget: int
    forward: Callable[[int], float] = lambda size: 1000 * size
    late: int | None = None  # what fits after other sizes, where that differs
    firsts: list[int] = field(default_factory=list)

    def run(self, probe: Probe) -> tuple[list[int], int | None]:
        self.firsts.append(probe.sizes[0])
        tried: list[Tried] = []
        sizes = list(probe.sizes)
        while sizes:
            size = sizes.pop(0)
            most = self.fits if not tried or self.late is None else min(self.fits, self.late)
            if size > most:
                return [one.size for one in tried], size
            tried.append(Tried(size, int(self.peak(size)), int(self.forward(size))))
            if not sizes and probe.stop is not None:
                following = next_size(tried, self.budget, probe.stop)
                sizes += [following] if following else []
        return [one.size for one in tried], None


def solve(machine: Machine, guess: int | None = None, limit: int = LIMIT) -> Search:
    search = Search(limit=limit, guess=guess)
    while (probe := search.ask()) is not None:
        assert search.launches <= 2 * math.log2(LIMIT), "too many launches"
        search.tell(probe, *machine.run(probe))
    return search


def affine(fits: int, base: int = 10**6, slope: int = 1000) -> Machine:
    return Machine(fits=fits, peak=lambda size: base + slope * size, budget=base + slope * fits)


@pytest.mark.parametrize("fits", [*range(200), 1000, 4094, 4095, 4096])
def test_search_on_line_finds_size_in_three_launches(fits: int) -> None:
    machine = affine(fits)
    search = solve(machine)
    assert search.answer == fits
    assert search.launches <= 3


@pytest.mark.parametrize("fits", [1, 2, 7, 40, 4000])
def test_search_from_right_guess_needs_two_launches(fits: int) -> None:
    machine = affine(fits)
    search = solve(machine, guess=fits)
    assert (search.answer, search.launches) == (fits, 2)
    assert machine.firsts == [fits, fits + 1]


@given(
    fits=st.integers(0, LIMIT),
    guess=st.none() | st.integers(1, LIMIT),
    late=st.none() | st.integers(1, LIMIT),
    curve=st.sampled_from(["affine", "flat", "steps", "square", "root", "falling", "kinked"]),
    noise=st.lists(st.floats(0.5, 1.5), min_size=1, max_size=7),
)
@example(fits=952, guess=None, late=485, curve="affine", noise=[1.5, 0.625])
def test_search_on_any_curve_is_exact_and_certified(
    fits: int, guess: int | None, late: int | None, curve: str, noise: list[float]
) -> None:
    shapes: dict[str, Callable[[int], float]] = {
        "affine": lambda size: 10**6 + 1000 * size,
        "flat": lambda size: 10**6,
        "steps": lambda size: 10**6 + 64000 * (size // 64),
        "square": lambda size: 10**6 + size**2,
        "root": lambda size: 10**6 + 10**4 * math.sqrt(size),
        "falling": lambda size: 10**7 - 1000 * size,
        "kinked": lambda size: max(2 * 10**6, 10**6 + 1000 * size),
    }
    shape = shapes[curve]
    machine = Machine(
        fits=fits,
        peak=lambda size: shape(size) * noise[size % len(noise)],
        budget=int(shape(fits)),
        late=late,
    )
    search = solve(machine, guess)
    assert search.answer == fits
    assert len(machine.firsts) == len(set(machine.firsts)), "a fresh launch was made twice"
    assert {fits, fits + 1} - {0, LIMIT + 1} <= set(machine.firsts), "not certified"


def test_search_finds_every_size_up_to_limit() -> None:
    for fits in range(LIMIT + 1):
        assert solve(affine(fits)).answer == fits
        assert solve(affine(fits), guess=min(LIMIT, fits * 3 // 2 + 1)).answer == fits


@pytest.mark.parametrize("fits", [1, 5, 29, 39, 200, 3000])
def test_search_on_flat_start_finds_size_in_three_launches(fits: int) -> None:
    """As ZeRO-2 on DeBERTa: flat until activations outweigh buckets."""

    def forward(size: int) -> float:
        return 40_000_000 + 1_335_000 * size

    budget = int(forward(fits)) + 700_000
    machine = Machine(
        fits=fits,
        forward=forward,
        peak=lambda size: max(0.9 * budget + size, forward(size)),
        budget=budget,
    )
    search = solve(machine)
    assert search.answer == fits
    assert search.launches <= 3


def test_search_beyond_kink_finds_size_in_three_launches() -> None:
    """As ZeRO-1 on BlenderBot: 3.7 MB a sample at first, 4.7 at the end."""
    machine = Machine(
        fits=40,
        forward=lambda size: 32_043_652 + 3_199_424 * size,
        peak=lambda size: max(70_589_252 + 1_537_728 * size, 32_043_620 + 4_736_960 * size),
        budget=226_126_181,
    )
    search = solve(machine)
    assert (search.answer, search.launches) == (40, 3)


def test_search_without_fitting_size_answers_zero() -> None:
    search = solve(affine(0))
    assert (search.answer, search.launches) == (0, 1)


def test_search_without_certificate_has_no_answer() -> None:
    search = Search(limit=LIMIT)
    search.tell(Probe((1,), stop=LIMIT + 1), [1, 2, 4], 5)
    assert search.answer is None


def test_search_counts_size_that_fits_only_in_fresh_launch() -> None:
    machine = affine(40)
    machine.late = 30
    assert solve(machine).answer == 40
