"""A sweep: every release runs the same cells, which shows what each of them changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from zerogate.releases.evaluation import Change, Evaluation, changes, number
from zerogate.report.results import readable


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One release. ``changes`` are against ``against``, the last release before it that ran;
    ``since_first`` are against the first release that ran.
    """

    release: str
    against: str = ""
    invalid: str = ""
    changes: list[Change] = field(default_factory=list)
    since_first: list[Change] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        if self.invalid:
            return "not installable"
        if self.failures:
            return "crash"
        if self.absent:
            return "cannot run here"
        return "changed" if self.changes else "green"


def sweep(releases: Iterable[str], evaluate: Callable[[str], Evaluation]) -> Iterable[Row]:
    """Yield a row for each release, oldest first, as soon as it is evaluated."""
    before: dict[str, tuple[str, Evaluation]] = {}
    first: dict[str, Evaluation] = {}
    for release in releases:
        evaluation = evaluate(release)
        found: list[Change] = []
        since_first: list[Change] = []
        against = []
        for cell in evaluation.values:
            if cell in before:
                earlier, reference = before[cell]
                against.append(earlier)
                found += [one for one in changes(reference, evaluation) if one.cell == cell]
                since_first += [one for one in changes(first[cell], evaluation) if one.cell == cell]
            before[cell] = (release, evaluation)
            first.setdefault(cell, evaluation)
        yield Row(
            release=release,
            against=", ".join(dict.fromkeys(against)),
            invalid=evaluation.invalid,
            changes=found,
            since_first=since_first,
            failures=evaluation.failures,
            absent=evaluation.absent,
        )


def as_json(package: str, cells: Sequence[str], rows: Iterable[Row]) -> dict[str, Any]:
    found = {
        "package": package,
        "cells": list(cells),
        "rows": [{**asdict(row), "outcome": row.outcome} for row in rows],
    }
    return dict(readable(found))


def as_markdown(package: str, cells: Sequence[str], rows: Iterable[Row]) -> str:
    """Return a Markdown table with one line for each release."""
    lines = [
        f"| {package} | outcome | what |",
        "|---|---|---|",
        *(f"| {row.release} | {row.outcome} | {_what(row)} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _what(row: Row) -> str:
    if row.invalid:
        return _cell(row.invalid)
    parts = [f"{cell}: {why}" for cell, why in (row.failures | row.absent).items()]
    parts += [f"against {row.against}: {_change(one)}" for one in row.changes[:1]]
    parts += [_change(one) for one in row.changes[1:]]
    return "<br>".join(map(_cell, parts))


def _change(one: Change) -> str:
    step = f" at step {one.step}" if one.step is not None else ""
    return f"{one.cell} `{one.metric}`{step}: {number(one.was)} → {number(one.now)}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
