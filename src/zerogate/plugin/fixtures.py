"""Fixtures of the regression suite: measured cells, and the gate that judges them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from zerogate.plugin.command_line import NO_PROJECT
from zerogate.plugin.gate import Gate
from zerogate.plugin.stash import SESSION
from zerogate.protocol.cell import Cell

if TYPE_CHECKING:
    from zerogate.metrics.batch_size import BatchSize
    from zerogate.metrics.measurement import Measurement
    from zerogate.protocol.job import BatchKind
    from zerogate.session.runner import JobChanges
    from zerogate.session.session import Session


@pytest.fixture(scope="session")
def zerogate_session(pytestconfig: pytest.Config) -> Session:
    """Return the session that measures and judges; it is closed at the end, whatever happens."""
    if SESSION not in pytestconfig.stash:
        pytest.fail(NO_PROJECT.format(pytestconfig.rootpath), pytrace=False)
    return pytestconfig.stash[SESSION]


@pytest.fixture
def measurement(cell: Cell, zerogate_session: Session) -> Measurement:
    """Return the cell's measurement, which is launched on first use and shared by many tests.

    Skips the test if this machine cannot run the cell. A launch that fails is an ERROR.
    """
    return _measure(zerogate_session, cell)


def _measure(session: Session, cell: Cell) -> Measurement:
    from zerogate.launch.errors import LaunchFailedError, OutOfMemoryError

    known = cell in session.failures
    # Checked before the first launch only: memory may be short by now, but the cell is measured.
    new = not known and cell not in session.measurements
    if new and (reason := session.setup.unavailable(cell)):
        pytest.skip(reason)
    try:
        return session.measure(cell)
    except OutOfMemoryError as error:
        if (
            cell.tier == "gpu" and session.baseline(cell) is None
        ):  # Not every card holds every cell.
            pytest.skip(f"{error.kind}: {error.summary}; no baseline says that it ever fitted here")
        report = f"{error.kind}: {error.summary}" if known else error.report()
    except LaunchFailedError as error:
        # The first test shows the whole report; the others refer to it.
        report = f"{error.kind}: {error.summary}" if known else error.report()
    # Outside of the handler, because pytest would show both exceptions.
    pytest.fail(report, pytrace=False)


@pytest.fixture
def other(
    request: pytest.FixtureRequest, cell: Cell, measurement: Measurement, zerogate_session: Session
) -> Measurement:
    """Return this session's measurement of the cell under another strategy.

    ``@pytest.mark.compared_with`` names the strategy; workload and world size are the same.
    """
    marker = request.node.get_closest_marker("compared_with")
    return _measure(zerogate_session, replace(cell, strategy=marker.args[0]))


@pytest.fixture
def other_accumulation(
    cell: Cell, measurement: Measurement, zerogate_session: Session
) -> Measurement:
    """Return the cell's measurement with another accumulation of the same global batch.

    All micro-batches of a step become one; a single micro-batch becomes two halves.
    """
    from zerogate.session.runner import JobChanges

    size: int = measurement.settings["micro_batch_size"]
    steps: int = measurement.settings["gradient_accumulation_steps"]
    if steps == 1 and size % 2:
        pytest.skip(f"a micro-batch of {size} cannot be halved")
    size, steps = (size * steps, 1) if steps > 1 else (size // 2, 2)
    changes = JobChanges(micro_batch_size=size, gradient_accumulation_steps=steps)
    name = f"{size}-micro-batch-size-{steps}-gradient-accumulation-steps"
    return _variant(zerogate_session, cell, name, changes)


@pytest.fixture
def one_rank(cell: Cell, measurement: Measurement, zerogate_session: Session) -> Measurement:
    """Return the cell's measurement with the same global batch on a single rank."""
    from zerogate.session.runner import JobChanges

    if cell.world_size == 1:
        pytest.skip("this is a single rank")
    alone = replace(cell, world_size=1)
    size = measurement.settings["micro_batch_size"] * cell.world_size
    changes = JobChanges(micro_batch_size=size)
    return _variant(zerogate_session, alone, f"{size}-micro-batch-size", changes)


def _variant(session: Session, cell: Cell, name: str, changes: JobChanges) -> Measurement:
    from zerogate.launch.errors import LaunchFailedError

    try:
        return session.variant(cell, name, changes)
    except LaunchFailedError as error:
        report = error.report()
    pytest.fail(report, pytrace=False)


@pytest.fixture
def batch_size(request: pytest.FixtureRequest, cell: Cell, zerogate_session: Session) -> BatchSize:
    """Return the largest batch that fits, of the kind that ``@pytest.mark.batch_size`` names."""
    kind = request.node.get_closest_marker("batch_size").args[0]
    found = _search(zerogate_session, cell, "train")
    if kind == "eval":
        if not zerogate_session.measurements[cell].evaluates_by_generating:
            pytest.skip("only what evaluates by generating has an eval batch size of its own")
        found = _search(zerogate_session, cell, kind)
    if request.node.get_closest_marker("compared_with"):
        _search(zerogate_session, cell.reference, kind)
    return found


def _search(session: Session, cell: Cell, kind: BatchKind) -> BatchSize:
    from zerogate.launch.errors import LaunchFailedError

    known = (cell, kind) in session.search_failures
    new = not known and cell not in session.measurements
    if new and (reason := session.setup.unavailable(cell)):
        pytest.skip(reason)
    try:
        return session.batch_size(cell, kind)
    except LaunchFailedError as error:
        report = f"{error.kind}: {error.summary}" if known else error.report()
    pytest.fail(report, pytrace=False)


@pytest.fixture
def gate(request: pytest.FixtureRequest, cell: Cell, zerogate_session: Session) -> Gate:
    """Return the gate: ``gate("loss")`` compares metrics of the cell with their baselines.

    ``Gate`` has the other claims. The cell has trained, except in tests on batch sizes, which need no
    training.
    """
    if not request.node.get_closest_marker("batch_size"):
        request.getfixturevalue("measurement")
    return Gate(request, zerogate_session, cell)
