"""A bisection: releases are evaluated until the one that changed a metric of a cell is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from packaging.version import Version

from zerogate.config.strategy_file import ConfigError
from zerogate.protocol.cell import Cell
from zerogate.releases.binary_search import BinarySearch, State
from zerogate.releases.ddmin import ddmin
from zerogate.releases.evaluation import Evaluation, changes, number
from zerogate.releases.package_sets import PackageSets

Packages = tuple[str, ...]
Evaluate = Callable[[Packages], Evaluation]


@dataclass(frozen=True, slots=True, kw_only=True)
class Culprit:
    """The release of ``package`` at which a metric first differs from ``last_good``, with the
    evaluations of both.

    ``skipped`` are releases in between that cannot run. ``beside`` are the other packages that the
    change needs.
    """

    package: str
    last_good: str
    first_bad: str
    skipped: tuple[str, ...] = ()
    beside: Packages = ()
    good: Evaluation
    bad: Evaluation

    def __str__(self) -> str:
        mended = Version(self.last_good) > Version(self.first_bad)
        text = (
            f"{self.package} {self.last_good} fixed it; {self.first_bad} is the last bad one"
            if mended
            else f"{self.package} {self.first_bad} is the first bad one; {self.last_good} is good"
        )
        if self.beside:
            text += f"; with {', '.join(self.beside)}"
        if self.skipped:
            text += f"; it may be one of {', '.join(self.skipped)}, which cannot run here"
        return text


@dataclass
class Bisect:
    """A search for what makes ``metric`` of ``cell`` differ between ``package_sets``.

    ``releases`` are those of each package, from its good end to its bad one. ``lines`` has a line
    for each evaluation.
    """

    package_sets: PackageSets
    cell: Cell
    metric: str
    evaluate: Evaluate
    evaluate_afresh: Evaluate
    releases: Mapping[str, Sequence[str]]
    output: Callable[[str], None]
    lines: list[str] = field(default_factory=list)
    _evaluations: dict[Packages, Evaluation] = field(default_factory=dict)

    def culprits(self) -> Iterator[Culprit]:
        """Yield a culprit for each package that the change needs, if its release can be found.

        Evaluations and culprits are reported to ``output``. Raises ConfigError if there is nothing
        to find, or if the metric is not the same when it is measured again.
        """
        packages = list(self.package_sets.good)
        self._check_ends(packages)
        if len(packages) > 1:
            packages = ddmin(
                packages, lambda some: self._state(self.package_sets.moved(some)) == "bad"
            )
            self.output(f"the change needs {' and '.join(packages)}")
        for one in packages:
            found = self._culprit(one, [other for other in packages if other != one])
            if found is not None:
                self.output(str(found))
                yield found

    def _check_ends(self, packages: Sequence[str]) -> None:
        problem = ""
        if (state := self._state(self.package_sets.moved([]))) == "bad":
            problem = f"{self._name([])} should be good but measured no finite number"
        elif state == "skipped":
            problem = f"{self._name([])} should be good but cannot be measured"
        elif (state := self._state(self.package_sets.moved(packages))) == "skipped":
            problem = f"{self._name(packages)} should be bad but cannot be measured"
        elif state == "good":
            problem = (
                f"{self._name(packages)} should be bad but measures the same as {self._name([])}"
            )
        if problem:
            raise ConfigError(f"bisect: {problem}; choose other ends, or another metric")

    def _culprit(self, package: str, others: Sequence[str]) -> Culprit | None:
        """Return the culprit of ``package``, with ``others`` at their bad releases; None if they do
        not run with its good release.
        """
        good = self.package_sets.good[package]
        beside = {name: self.package_sets.bad[name] for name in others}
        found = BinarySearch(self.releases[package])
        while (release := found.ask()) is not None:
            found.tell(
                release, self._state(self.package_sets.with_releases({**beside, package: release}))
            )
        if found.problem:
            with_others = " and ".join(f"{name} {release}" for name, release in beside.items())
            self._tell(
                f"{package}: {good} cannot be measured with {with_others}: they run only together, "
                f"so the first bad release of {package} cannot be found"
            )
            return None
        ends = []
        for release, expected in ((found.last_good, "good"), (found.first_bad, "bad")):
            packages = self.package_sets.with_releases({**beside, package: release})
            evaluation = self.evaluate_afresh(packages)
            state, why = self._judged(evaluation)
            self._tell(f"{self._words(packages)}, measured again: {state}: {why}")
            if state != expected:
                raise ConfigError(
                    f"bisect: {package} {release} was {expected} and is {state} when measured "
                    "again; the metric differs from launch to launch; choose another"
                )
            ends.append(evaluation)
        return Culprit(
            package=package,
            last_good=found.last_good,
            first_bad=found.first_bad,
            skipped=tuple(found.skipped),
            beside=tuple(f"{name} {release}" for name, release in beside.items()),
            good=ends[0],
            bad=ends[1],
        )

    def _state(self, packages: Packages) -> State:
        if packages in self._evaluations:
            return self._judged(self._evaluations[packages])[0]
        self._evaluations[packages] = evaluation = self.evaluate(packages)
        state, why = self._judged(evaluation)
        self._tell(f"{self._words(packages)}: {state}: {why}")
        return state

    def _judged(self, evaluation: Evaluation) -> tuple[State, str]:
        """Return whether ``evaluation`` is good, bad or skipped, and why."""
        cell, metric = self.cell.id, self.metric
        if metric not in evaluation.values.get(cell, {}):
            why = {**evaluation.failures, **evaluation.absent}.get(
                cell, f"{metric} is not measured there"
            )
            return "skipped", evaluation.invalid or why
        good = self._name([])
        found = changes(self._evaluations[self.package_sets.moved([])], evaluation)
        changed = [one for one in found if one.metric == metric]
        if not changed:
            return "good", f"{metric} as in {good}"
        (one,) = changed
        step = f" at step {one.step}" if one.step is not None else ""
        return "bad", f"{metric}{step} is {number(one.now)}, in {good} {number(one.was)}"

    def _tell(self, line: str) -> None:
        self.lines.append(line)
        self.output(line)

    def _words(self, packages: Packages) -> str:
        """Return the packages that differ between the package sets, by name and release."""
        own = packages[len(self.package_sets.both) :]
        return ", ".join(one.replace("==", " ") for one in own)

    def _name(self, moved: Sequence[str]) -> str:
        """Return a package set's name for a sentence; for one package, the release alone."""
        if len(self.package_sets.good) == 1:
            (name,) = self.package_sets.good
            return self.package_sets.bad[name] if moved else self.package_sets.good[name]
        return "--bad" if moved else "--good"
