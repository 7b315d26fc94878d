"""The suite can fail: each planted fault is caught, by the metric that should see it, and alone."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Results
from tests.faults.fault import (
    ALL_SPARED,
    FAULTS,
    MIXED_DEVICES,
    WRONG_CONFIGURATION,
    Fault,
    Spared,
    spared_strategies,
)

each_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.name)


@each_fault
def test_planted_fault_is_caught_by_expected_metric(fault: Fault, results: Results) -> None:
    for strategy in fault.on:
        failure = results.failure(strategy, fault.name)
        if fault.caught_by == WRONG_CONFIGURATION:
            assert failure.get("kind") == WRONG_CONFIGURATION, f"{strategy}: {failure}"
        elif fault.caught_by == MIXED_DEVICES:
            assert MIXED_DEVICES in failure.get("summary", ""), f"{strategy}: {failure}"
        else:
            assert not failure, f"{strategy}: {failure}"
            regressed = results.regressed(strategy, fault.name)
            assert fault.caught_by in regressed, f"{strategy}: only {sorted(regressed)}"


@pytest.mark.parametrize(
    "spared", spared_strategies(), ids=lambda one: f"{one.workload}-{one.strategy}"
)
def test_spared_strategy_has_no_regression_under_planted_faults(
    spared: Spared, results: Results
) -> None:
    names = ", ".join(fault.name for fault in spared.faults)
    assert not results.failure(spared.strategy, ALL_SPARED), names
    assert results.verdicts(spared.strategy, ALL_SPARED), "nothing was judged"
    regressed = results.regressed(spared.strategy, ALL_SPARED)
    assert not regressed, f"{sorted(regressed)}, by one of {names}"


def test_fault_families_have_at_least_five_faults_each() -> None:
    families = [fault.family for fault in FAULTS.values()]
    assert len(families) >= 45
    assert min(map(families.count, set(families))) >= 5
    assert len(set(families)) == 5
