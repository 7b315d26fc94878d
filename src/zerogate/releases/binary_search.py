"""Binary search for the first bad release, in log2 evaluations. Pure: the caller evaluates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

State = Literal["good", "bad", "skipped"]


@dataclass
class BinarySearch:
    """A search over ``releases`` from the good end to the bad one, both included, in either
    direction of time.

    The ends come first: a bisection between two that do not differ takes long and finds nothing.
    Releases that cannot run are skipped, as ``git bisect skip`` does.
    """

    releases: Sequence[str]
    answers: dict[str, State] = field(default_factory=dict)

    def ask(self) -> str | None:
        """Return the next release to evaluate; None once the result cannot get any better."""
        ends = self.releases[0], self.releases[-1]
        for end in ends:
            if end not in self.answers:
                return end
        if self.problem:
            return None
        low, high = self._bounds()
        between = [
            one for one in range(low + 1, high) if self.answers.get(self.releases[one]) != "skipped"
        ]
        middle = (low + high) / 2
        return self.releases[min(between, key=lambda one: abs(one - middle))] if between else None

    def tell(self, release: str, state: State) -> None:
        self.answers[release] = state

    @property
    def problem(self) -> str:
        """The reason why there is nothing to find; empty while there may be something."""
        good, bad = self.releases[0], self.releases[-1]
        if self.answers.get(good, "good") != "good":
            return f"{good} should be good but cannot be measured"
        if self.answers.get(bad, "bad") == "skipped":
            return f"{bad} should be bad but cannot be measured"
        if self.answers.get(bad) == "good":
            return f"{bad} should be bad but measures the same as {good}"
        return ""

    @property
    def first_bad(self) -> str:
        return self.releases[self._bounds()[1]]

    @property
    def last_good(self) -> str:
        return self.releases[self._bounds()[0]]

    @property
    def skipped(self) -> list[str]:
        """Releases between last good and first bad that could not run: any may be the first bad."""
        low, high = self._bounds()
        return list(self.releases[low + 1 : high])

    def _bounds(self) -> tuple[int, int]:
        low, high = 0, len(self.releases) - 1
        for index, release in enumerate(self.releases):
            if self.answers.get(release) == "bad":
                high = min(high, index)
        for index, release in enumerate(self.releases[:high]):
            if self.answers.get(release) == "good":
                low = max(low, index)
        return low, high
