"""Verdicts to the outcome of a test: what the regression suite's ``gate`` fixture is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from zerogate.launch.errors import LaunchFailedError
from zerogate.metrics.table import metric_named
from zerogate.session.judge import judge, judge_reference_result
from zerogate.verdicts.invariants import (
    PARITY_LIMIT,
    judge_above,
    judge_below,
    judge_equivalent,
    judge_falls,
    judge_grows,
    judge_learned,
    judge_moves,
    judge_needed,
    judge_same,
    judge_schedule,
)
from zerogate.verdicts.verdict import GRAVITY, Verdict

if TYPE_CHECKING:
    from zerogate.metrics.measurement import Measurement
    from zerogate.protocol.cell import Cell
    from zerogate.session.session import Session

STATUS_PROPERTY = "zerogate.status"
"""The user property under which a test's report carries its verdict, in words."""


class Gate:
    """Turns verdicts into the outcome of one test."""

    def __init__(self, request: pytest.FixtureRequest, session: Session, cell: Cell) -> None:
        self._request = request
        self._session = session
        self._cell = cell
        self._options = session.options

    def __call__(self, *names: str) -> None:
        try:
            found = [judge(self._session, self._cell, name) for name in names]
        except LaunchFailedError as error:  # Of a launch that was to confirm slowness.
            pytest.fail(error.report(), pytrace=False)
        self.verdicts(found)

    def same_as(self, other: Measurement, *names: str, limit: float = PARITY_LIMIT) -> None:
        """Hold per-step series to another cell's of this session."""
        self._hold(
            [judge_same(metric_named(name), self._own, other, limit=limit) for name in names]
        )

    def below(self, other: Measurement, name: str) -> None:
        """Hold bytes to being fewer than those of a strategy that shards or offloads less."""
        own = self._own
        ours, theirs = (self._session.setup.strategy(one.cell) for one in (own, other))
        more = ours.offloads_more_than(theirs)
        self._hold([judge_below(own, other, metric_named(name), offloads_more=more)])

    def above(self, other: Measurement, name: str) -> None:
        """Hold bytes to being more than those of a strategy that offloads less."""
        self._hold([judge_above(self._own, other, metric_named(name))])

    def needs(self, *names: str) -> None:
        """Hold counts to 0, the one number that is right."""
        self._hold([judge_needed(self._own, metric_named(name)) for name in names])

    def does_not_grow(self) -> None:
        """Hold memory to what it was a step ago."""
        self._hold([judge_grows(self._own)])

    def moves(self, *names: str) -> None:
        """Hold counts to being more than 0."""
        self._hold([judge_moves(self._own, metric_named(name)) for name in names])

    def falls(self, name: str) -> None:
        """Hold a per-step series to being finite, and lower in the end."""
        self._hold([judge_falls(self._own, metric_named(name))])

    def follows_schedule(self) -> None:
        """Hold every step's learning rate to the recipe's schedule."""
        self._hold([judge_schedule(self._own)])

    def equivalent(self, way: str, other: Measurement) -> None:
        """Hold losses and norms to those of another way to train on the same global batches."""
        metrics = map(metric_named, ("loss", "gradient_norm", "learning_rate"))
        self._hold([judge_equivalent(metric, self._own, other, way) for metric in metrics])

    def learned(self) -> None:
        """Hold every quality metric to what a model that learned reaches on generated data."""
        own = self._own
        if self._cell.tier != "cpu" or own.settings["data_origin"] != "generated":
            pytest.skip("what must be learned is known for the cpu tier's generated data only")
        named = (metric_named(name, own.quality_better) for name in own.quality_learned)
        self._hold([judge_learned(own, metric) for metric in named])

    @property
    def _own(self) -> Measurement:
        return self._session.measure(self._cell)

    def _hold(self, verdicts: list[Verdict]) -> None:
        """What needs no baseline is strict in recording too."""
        self.verdicts([self._session.keep(verdict) for verdict in verdicts], strict=True)

    def published(self, name: str) -> None:
        """Hold a metric to what others published of the cell; strict in recording too."""
        found = [one for one in self._session.reference_results if name in one.values(self._cell)]
        self.verdicts(
            [judge_reference_result(self._session, self._cell, name, one) for one in found],
            strict=True,
        )

    def verdicts(self, verdicts: list[Verdict], *, strict: bool = False) -> None:
        from zerogate.report.formatting import sentence

        worst = min(verdicts, key=lambda one: GRAVITY.index(one.status))
        self._request.node.user_properties.append((STATUS_PROPERTY, _short(worst)))
        text = "\n".join(sentence(one) for one in verdicts if one.status == worst.status)
        if self._options.update_baselines and not strict:
            return
        if worst.status == "regressed":
            pytest.fail(text, pytrace=False)
        if worst.status == "no_baseline":
            how = 'record one with --update-baselines --reason "…"'
            if self._options.missing_baseline == "fail":
                pytest.fail(f"{text}; {how}", pytrace=False)
            pytest.skip(f"no baseline; {how}")
        if worst.status in ("not_comparable", "invalid"):
            # Without the cell, so that pytest folds what has one reason into one line.
            pytest.skip(worst.note)


def _short(verdict: Verdict) -> str:
    from zerogate.report.formatting import percent, word

    if verdict.status in ("regressed", "improved") and verdict.change is not None:
        return f"{word(verdict)} ({percent(verdict.change)})"
    return word(verdict)
