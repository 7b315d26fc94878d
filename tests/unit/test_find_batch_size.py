"""The search for the largest batch as launches carry it out: what fits, how narrowly, and a second
search if a card seems to have room for less. Launches are made by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from records import a_cell, a_failed_record, a_record

from zerogate.config.options import Options
from zerogate.launch.errors import OutOfMemoryError
from zerogate.metrics.device_use import LaunchRecords
from zerogate.protocol.cell import Cell
from zerogate.protocol.job import ProbeRequest
from zerogate.protocol.record import Probed
from zerogate.report.terminal import summary
from zerogate.session.judge import judge
from zerogate.session.record_baselines import record_baselines
from zerogate.session.session import Session

ROOT = Path(__file__).parents[2]
CELL = a_cell(tier="gpu")
BUDGET = 3750
SIZE = "max_micro_batch_size"


@dataclass
class Card:
    """A device on which sizes up to ``fits`` fit; of several, each search finds the next one."""

    fits: list[int]
    retries: int = 0
    launches: list[int] = field(default_factory=list)

    def probe(self, cell: Cell, request: ProbeRequest, index: int) -> LaunchRecords:
        self.launches.append(index)
        probed: tuple[Probed, ...] = ()
        for size in request.sizes:
            if size > self.fits[0]:
                error = OutOfMemoryError(f"{cell.id}: out of memory")
                error.record = a_record(
                    outcome="oom",
                    failure=a_failed_record(0).failure,
                    budget_bytes=BUDGET,
                    probed=probed,
                    probing=size,
                )
                if size == self.fits[0] + 1 and len(self.fits) > 1:
                    del self.fits[0]  # That certified it.
                raise error
            probed = (*probed, self._probed(size))
        return LaunchRecords(ranks=(a_record(budget_bytes=BUDGET, probed=probed),))

    def _probed(self, size: int) -> Probed:
        return Probed(
            size=size,
            peak_allocated_bytes=100 * size,
            forward_bytes=90 * size,
            step_seconds=(1.0, 0.5, 0.5),
            allocator_retries=self.retries,
        )


OnCard = Callable[[Card], Session]


@pytest.fixture
def on_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OnCard:
    """Sessions whose probes run on a card, and that share one folder of baselines."""

    def session(card: Card) -> Session:
        options = Options(root=ROOT, report_folder=tmp_path, baseline_folder=tmp_path / "baselines")
        found = Session(options, launchers={})
        monkeypatch.setattr(found.runner, "probe", card.probe)
        return found

    return session


@pytest.fixture
def recorded(on_card: OnCard) -> OnCard:
    """``on_card``, with 37 as the baseline of the cell."""
    first = on_card(Card([37]))
    first.batch_size(CELL, "train")
    written, left_out = record_baselines(first, "the first")
    assert written
    assert not left_out
    return on_card


def test_size_that_fits_after_all_in_second_search_is_ok(recorded: OnCard) -> None:
    card = Card([35, 37])
    session = recorded(card)
    assert session.batch_size(CELL, "train").size == 35
    assert judge(session, CELL, SIZE).status == "ok"
    found = session.batch_size(CELL, "train")
    assert (found.size, found.searches) == (37, 2)
    assert found.launches == len(card.launches)
    assert card.launches == sorted(set(card.launches)), "a launch's folder was used twice"


def test_size_that_is_smaller_in_two_searches_is_regressed_once(recorded: OnCard) -> None:
    card = Card([35])
    session = recorded(card)
    session.batch_size(CELL, "train")
    assert judge(session, CELL, SIZE).status == "regressed"
    launches = len(card.launches)
    assert judge(session, CELL, SIZE).status == "regressed"
    assert len(card.launches) == launches, "searched a third time"
    assert session.batch_size(CELL, "train").searches == 2


def test_size_as_in_baseline_is_searched_once(recorded: OnCard) -> None:
    card = Card([37])
    session = recorded(card)
    session.batch_size(CELL, "train")
    assert judge(session, CELL, SIZE).status == "ok"
    assert card.launches == [0, 1]


def test_size_that_fits_by_retries_says_so_below_table(on_card: OnCard) -> None:
    session = on_card(Card([33], retries=5))
    session.batch_size(CELL, "train")
    assert "zero2: largest micro-batch: 33 fits, with 5 retries of the allocator" in summary(
        session
    )
