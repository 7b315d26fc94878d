"""A bisection carried out: releases tried until it is known which changed a metric of a cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from packaging.version import Version

from zerogate.config.strategy_file import ConfigError
from zerogate.protocol.cell import Cell
from zerogate.releases.binary_search import Bisection, State
from zerogate.releases.ddmin import responsible
from zerogate.releases.evaluation import Trial, changes, number
from zerogate.releases.package_sets import Sides

Packages = tuple[str, ...]
Attempt = Callable[[Packages], Trial]


@dataclass(frozen=True, slots=True, kw_only=True)
class Culprit:
    """The release of ``package`` with which a metric is not what it was with ``last_good``, and the
    trials of both. ``untold`` are releases in between, which cannot run; ``beside`` is what must be
    there too.
    """

    package: str
    last_good: str
    first_bad: str
    untold: tuple[str, ...] = ()
    beside: Packages = ()
    good: Trial
    bad: Trial

    def __str__(self) -> str:
        mended = Version(self.last_good) > Version(self.first_bad)
        text = (
            f"{self.package} {self.last_good} mended it; {self.first_bad} is the last that has it"
            if mended
            else f"{self.package} {self.first_bad} is the first bad one; {self.last_good} is good"
        )
        if self.beside:
            text += f"; with {', '.join(self.beside)}"
        if self.untold:
            text += f"; it may be one of {', '.join(self.untold)}, which cannot run here"
        return text


@dataclass
class Search:
    """Looks for what makes ``metric`` of ``cell`` differ between ``sides``. ``releases`` are those of
    each package, from its good end to its bad one; ``lines`` is what was told of each trial.
    """

    sides: Sides
    cell: Cell
    metric: str
    attempt: Attempt
    attempt_anew: Attempt
    releases: Mapping[str, Sequence[str]]
    say: Callable[[str], None]
    lines: list[str] = field(default_factory=list)
    _trials: dict[Packages, Trial] = field(default_factory=dict)

    def culprits(self) -> Iterator[Culprit]:
        """One for each package that it takes and whose releases can be told apart; told to ``say`` as
        it goes. Raises ConfigError where there is nothing to find.
        """
        packages = list(self.sides.good)
        self._check_ends(packages)
        if len(packages) > 1:
            packages = responsible(
                packages, lambda some: self._state(self.sides.moved(some)) == "bad"
            )
            self.say(f"it takes {' and '.join(packages)}")
        for one in packages:
            found = self._culprit(one, [other for other in packages if other != one])
            if found is not None:
                self.say(str(found))
                yield found

    def _check_ends(self, packages: Sequence[str]) -> None:
        problem = ""
        if (state := self._state(self.sides.moved([]))) == "bad":
            problem = f"{self._name([])} was to be good and has a number that is none"
        elif state == "skipped":
            problem = f"{self._name([])} was to be good and cannot be measured"
        elif (state := self._state(self.sides.moved(packages))) == "skipped":
            problem = f"{self._name(packages)} was to be bad and cannot be measured"
        elif state == "good":
            problem = (
                f"{self._name(packages)} was to be bad and measures what {self._name([])} does"
            )
        if problem:
            raise ConfigError(f"bisect: {problem}; choose other ends, or another metric")

    def _culprit(self, package: str, others: Sequence[str]) -> Culprit | None:
        """The release of ``package``, with ``others`` as they are on the bad side; None where they do
        not run with its good one.
        """
        good = self.sides.good[package]
        beside = {name: self.sides.bad[name] for name in others}
        found = Bisection(self.releases[package])
        while (release := found.ask()) is not None:
            found.tell(release, self._state(self.sides.with_releases({**beside, package: release})))
        if found.problem:
            with_others = " and ".join(f"{name} {release}" for name, release in beside.items())
            self._tell(
                f"{package}: {good} cannot be measured with {with_others}: they run only together, and "
                f"which release of {package} it was cannot be told"
            )
            return None
        ends = []
        for release, expected in ((found.last_good, "good"), (found.first_bad, "bad")):
            packages = self.sides.with_releases({**beside, package: release})
            trial = self.attempt_anew(packages)
            state, why = self._judged(trial)
            self._tell(f"{self._words(packages)}, measured again: {state}: {why}")
            if state != expected:
                raise ConfigError(
                    f"bisect: {package} {release} was {expected} and now is {state}; the metric is not "
                    "the same from launch to launch; choose another"
                )
            ends.append(trial)
        return Culprit(
            package=package,
            last_good=found.last_good,
            first_bad=found.first_bad,
            untold=tuple(found.untold),
            beside=tuple(f"{name} {release}" for name, release in beside.items()),
            good=ends[0],
            bad=ends[1],
        )

    def _state(self, packages: Packages) -> State:
        if packages in self._trials:
            return self._judged(self._trials[packages])[0]
        self._trials[packages] = trial = self.attempt(packages)
        state, why = self._judged(trial)
        self._tell(f"{self._words(packages)}: {state}: {why}")
        return state

    def _judged(self, trial: Trial) -> tuple[State, str]:
        """Whether ``trial`` measured what the good side did; and in words."""
        cell, metric = self.cell.id, self.metric
        if metric not in trial.values.get(cell, {}):
            why = {**trial.failures, **trial.absent}.get(cell, f"{metric} is not measured there")
            return "skipped", trial.invalid or why
        good = self._name([])
        found = changes(self._trials[self.sides.moved([])], trial)
        changed = [one for one in found if one.metric == metric]
        if not changed:
            return "good", f"{metric} as in {good}"
        (one,) = changed
        step = f" at step {one.step}" if one.step is not None else ""
        return "bad", f"{metric}{step} is {number(one.now)}, in {good} {number(one.was)}"

    def _tell(self, line: str) -> None:
        self.lines.append(line)
        self.say(line)

    def _words(self, packages: Packages) -> str:
        """Packages that differ from side to side, by name and release."""
        own = packages[len(self.sides.both) :]
        return ", ".join(one.replace("==", " ") for one in own)

    def _name(self, moved: Sequence[str]) -> str:
        """A side in a sentence: the release alone where there is one package."""
        if len(self.sides.good) == 1:
            (name,) = self.sides.good
            return self.sides.bad[name] if moved else self.sides.good[name]
        return "--bad" if moved else "--good"
