"""The regression suite's ``gate``, which turns verdicts into the outcome of a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from zerogate.launch.errors import LaunchFailedError
from zerogate.metrics.model_states import paper_states
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
    judge_offloads,
    judge_same,
    judge_schedule,
)
from zerogate.verdicts.verdict import GRAVITY, Verdict

if TYPE_CHECKING:
    from zerogate.metrics.measurement import Measurement
    from zerogate.protocol.cell import Cell
    from zerogate.session.session import Session

STATUS_PROPERTY = "zerogate.status"
"""User property of a test's report that has its verdict in words."""


class Gate:
    """Claims on one cell in one test; their verdicts decide the outcome of the test."""

    def __init__(self, request: pytest.FixtureRequest, session: Session, cell: Cell) -> None:
        self._request = request
        self._session = session
        self._cell = cell
        self._options = session.options

    def __call__(self, *names: str) -> None:
        """Judge metrics of the cell against the baseline or, with --against, the other environment."""
        try:
            found = [judge(self._session, self._cell, name) for name in names]
        except LaunchFailedError as error:  # From a launch that was to confirm a regression.
            pytest.fail(error.report(), pytrace=False)
        self.verdicts(found)

    def same_as(self, other: Measurement, *names: str, limit: float = PARITY_LIMIT) -> None:
        """Compare per-step series with those of another cell of this session."""
        self._hold(
            [judge_same(metric_named(name), self._own, other, limit=limit) for name in names]
        )

    def below(self, other: Measurement, name: str) -> None:
        """Judge whether the cell needs fewer bytes than a strategy that shards or offloads less."""
        own = self._own
        ours, theirs = (self._session.setup.strategy(one.cell) for one in (own, other))
        more = ours.offloads_more_than(theirs)
        self._hold([judge_below(own, other, metric_named(name), offloads_more=more)])

    def above(self, other: Measurement, name: str) -> None:
        """Judge whether the cell needs more bytes than a strategy that offloads less."""
        self._hold([judge_above(self._own, other, metric_named(name))])

    def offloads(self, other: Measurement) -> None:
        """Judge whether model states left the device for the host.

        On the cpu tier, which counts what is on the host, they must by as much as the papers say.
        """
        if self._cell.tier == "gpu":
            self.below(other, "model_state_bytes")
            self.above(other, "peak_host_bytes")
            return
        strategy = self._session.setup.strategy
        ours, theirs = (paper_states(strategy(one.cell), one) for one in (self._own, other))
        device, host = theirs.device - ours.device, ours.host - theirs.host
        self._hold(judge_offloads(self._own, other, device, host))

    def needs(self, *names: str) -> None:
        """Judge whether counts are 0, the only right number."""
        self._hold([judge_needed(self._own, metric_named(name)) for name in names])

    def does_not_grow(self) -> None:
        """Judge whether memory stays what it was a step ago."""
        self._hold([judge_grows(self._own)])

    def moves(self, *names: str) -> None:
        """Judge whether counts are more than 0."""
        self._hold([judge_moves(self._own, metric_named(name)) for name in names])

    def falls(self, name: str) -> None:
        """Judge whether a per-step series is finite, and lower in the end."""
        self._hold([judge_falls(self._own, metric_named(name))])

    def follows_schedule(self) -> None:
        """Compare the learning rate of every step with the recipe's schedule."""
        self._hold([judge_schedule(self._own)])

    def equivalent(self, way: str, other: Measurement) -> None:
        """Compare losses, norms and rates with another way to train on the same global batches."""
        metrics = map(metric_named, ("loss", "gradient_norm", "learning_rate"))
        self._hold([judge_equivalent(metric, self._own, other, way) for metric in metrics])

    def learned(self) -> None:
        """Judge whether every quality metric shows that the model learned from generated data."""
        own = self._own
        if self._cell.tier != "cpu" or own.settings["data_origin"] != "generated":
            pytest.skip("what must be learned is known for the cpu tier's generated data only")
        named = (metric_named(name, own.quality_better) for name in own.quality_learned)
        self._hold([judge_learned(own, metric) for metric in named])

    @property
    def _own(self) -> Measurement:
        return self._session.measure(self._cell)

    def _hold(self, verdicts: list[Verdict]) -> None:
        """Keep verdicts that need no baseline; they decide the outcome even while recording."""
        self.verdicts([self._session.keep(verdict) for verdict in verdicts], strict=True)

    def published(self, name: str) -> None:
        """Compare a metric with what others published of the cell, even while recording."""
        found = [one for one in self._session.reference_results if name in one.values(self._cell)]
        self.verdicts(
            [judge_reference_result(self._session, self._cell, name, one) for one in found],
            strict=True,
        )

    def verdicts(self, verdicts: list[Verdict], *, strict: bool = False) -> None:
        """Fail, skip or pass the test by the gravest verdict.

        While baselines are recorded, only ``strict`` verdicts fail or skip it.
        """
        from zerogate.report.formatting import sentence, word

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
            pytest.skip(f"{word(worst)}; {how}")
        if worst.status in ("not_comparable", "invalid"):
            # The cell is left out, so that pytest shows tests with the same reason in one line.
            pytest.skip(f"{word(worst)}: {worst.note}")


def _short(verdict: Verdict) -> str:
    from zerogate.report.formatting import percent, word

    if verdict.status in ("regressed", "improved") and verdict.change is not None:
        return f"{word(verdict)} ({percent(verdict.change)})"
    return word(verdict)
