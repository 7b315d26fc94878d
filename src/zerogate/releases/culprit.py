"""A bisection carried out: releases tried until one is known that changed a metric of a cell."""

from __future__ import annotations

from collections.abc import Callable

from packaging.version import Version

from zerogate.cell import Cell
from zerogate.config_file import ConfigError
from zerogate.releases.bisection import Bisection, State
from zerogate.releases.trial import Trial, changes

Attempt = Callable[[str], Trial]


def find_culprit(
    package: str,
    found: Bisection,
    cell: Cell,
    metric: str,
    *,
    attempt: Attempt,
    attempt_anew: Attempt,
    say: Callable[[str], None],
) -> None:
    """Try releases of ``package`` until ``found`` knows, telling ``say``; then the culprit and the
    release before it once more, from nothing. Raises ConfigError where there is nothing to find.
    """
    good = found.releases[0]
    reference = attempt(f"{package}=={good}")
    while (release := found.ask()) is not None:
        trial = reference if release == good else attempt(f"{package}=={release}")
        answer, why = _state(trial, reference, cell, metric, good)
        found.tell(release, answer)
        say(f"{package} {release}: {answer}: {why}")
    if found.problem:
        raise ConfigError(f"bisect: {found.problem}; choose other ends, or another metric")
    for release, expected in ((found.last_good, "good"), (found.first_bad, "bad")):
        answer, why = _state(attempt_anew(f"{package}=={release}"), reference, cell, metric, good)
        say(f"{package} {release}, measured again: {answer}: {why}")
        if answer != expected:
            raise ConfigError(
                f"bisect: {release} was {expected} and now is {answer}; the metric is not the same "
                "from launch to launch; choose another"
            )
    say(_conclusion(package, found))


def _state(trial: Trial, reference: Trial, cell: Cell, metric: str, good: str) -> tuple[State, str]:
    """Whether ``trial`` measured what ``reference``, of the release ``good``, did; and in words."""
    if metric not in trial.values.get(cell.id, {}):
        why = {**trial.failures, **trial.absent}.get(cell.id, f"{metric} is not measured there")
        return "skipped", trial.invalid or why
    changed = [one for one in changes(reference, trial) if one.metric == metric]
    if not changed:
        return "good", f"{metric} as in {good}"
    (one,) = changed
    step = f" at step {one.step}" if one.step is not None else ""
    return "bad", f"{metric}{step} is {one.now}, in {good} {one.was}"


def _conclusion(package: str, found: Bisection) -> str:
    backwards = Version(found.releases[0]) > Version(found.releases[-1])
    text = (
        f"{package} {found.last_good} mended it; {found.first_bad} is the last that has it"
        if backwards
        else f"{package} {found.first_bad} is the first bad one; {found.last_good} is good"
    )
    if found.untold:
        text += f"; it may be one of {', '.join(found.untold)}, which cannot run here"
    return text
