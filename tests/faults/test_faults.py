"""The suite can fail: each planted fault is caught, by the metric that should see it, and alone."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Results
from tests.faults.fault import FAULTS, WRONG_CONFIGURATION, Fault

each_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.name)


@each_fault
def test_a_fault_is_caught_by_the_metric_that_should_see_it(fault: Fault, results: Results) -> None:
    for strategy in fault.on:
        failure = results.failure(strategy, fault)
        if fault.caught_by == WRONG_CONFIGURATION:
            assert failure.get("kind") == WRONG_CONFIGURATION, f"{strategy}: {failure}"
        else:
            assert not failure, f"{strategy}: {failure}"
            regressed = results.regressed(strategy, fault)
            assert fault.caught_by in regressed, f"{strategy}: only {sorted(regressed)}"


@pytest.mark.parametrize(
    "fault", [one for one in FAULTS.values() if one.spares], ids=lambda fault: fault.name
)
def test_every_other_cell_stays_green(fault: Fault, results: Results) -> None:
    for strategy in fault.spares:
        assert not results.failure(strategy, fault)
        assert results.verdicts(strategy, fault), f"{strategy}: nothing was judged"
        regressed = results.regressed(strategy, fault)
        assert not regressed, f"{strategy}: {sorted(regressed)}"


def test_there_are_enough_of_each_family() -> None:
    families = [fault.family for fault in FAULTS.values()]
    assert len(families) >= 25
    assert min(map(families.count, set(families))) >= 5
    assert len(set(families)) == 4
