"""The first release that is not like the good one, in log2 evaluations. Pure: it asks, and is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

State = Literal["good", "bad", "skipped"]


@dataclass
class BinarySearch:
    """``releases`` from the good end to the bad one, both included, in whichever direction of time.

    Ends are asked for first: a bisection between two that do not differ finds nothing, at length. What
    cannot run is skipped, as ``git bisect skip`` does.
    """

    releases: Sequence[str]
    told: dict[str, State] = field(default_factory=dict)

    def ask(self) -> str | None:
        """The release to try next; None when it is known, or can be known no better."""
        ends = self.releases[0], self.releases[-1]
        for end in ends:
            if end not in self.told:
                return end
        if self.problem:
            return None
        low, high = self._bounds()
        between = [
            one for one in range(low + 1, high) if self.told.get(self.releases[one]) != "skipped"
        ]
        middle = (low + high) / 2
        return self.releases[min(between, key=lambda one: abs(one - middle))] if between else None

    def tell(self, release: str, state: State) -> None:
        self.told[release] = state

    @property
    def problem(self) -> str:
        """Why there is nothing to find; empty while there may be."""
        good, bad = self.releases[0], self.releases[-1]
        if self.told.get(good, "good") != "good":
            return f"{good} was to be good and cannot be measured"
        if self.told.get(bad, "bad") == "skipped":
            return f"{bad} was to be bad and cannot be measured"
        if self.told.get(bad) == "good":
            return f"{bad} was to be bad and measures what {good} does"
        return ""

    @property
    def first_bad(self) -> str:
        return self.releases[self._bounds()[1]]

    @property
    def last_good(self) -> str:
        return self.releases[self._bounds()[0]]

    @property
    def skipped(self) -> list[str]:
        """Releases between last good and first bad, which could not run: it may be one of them."""
        low, high = self._bounds()
        return list(self.releases[low + 1 : high])

    def _bounds(self) -> tuple[int, int]:
        low, high = 0, len(self.releases) - 1
        for index, release in enumerate(self.releases):
            if self.told.get(release) == "bad":
                high = min(high, index)
        for index, release in enumerate(self.releases[:high]):
            if self.told.get(release) == "good":
                low = max(low, index)
        return low, high
