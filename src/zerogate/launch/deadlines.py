"""Deadlines of a launch and of each of its phases: ten times its baseline, with a floor.

The floor covers what no baseline knows: another machine, a cold page cache, a first compile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from zerogate.protocol.cell import Tier

PATIENCE = 10.0
"""Factor over the baseline at which a launch or a phase counts as stuck."""

LAUNCH_SECONDS: Mapping[Tier, float] = {"cpu": 300.0, "gpu": 6 * 3600.0}
"""The shortest deadline of a whole launch. On cards it allows for real data: the article's longest
epoch took 6608 s. A rank that hangs exceeds the deadline of its phase before that."""

FLOOR_SECONDS: Mapping[Tier, Mapping[str, float]] = {
    "cpu": {"set-up": 120.0, "train": 60.0, "eval": 120.0, "trace": 120.0},
    "gpu": {"set-up": 900.0, "train": 300.0, "eval": 1800.0, "trace": 900.0},
}
"""The shortest deadline of each phase; that of ``train`` is for one optimizer step."""

PROBE_SECONDS = 3600.0
"""The longest deadline of a probe launch: it trains a few steps at each of several batch sizes."""

BASELINES = {
    "set-up": "setup_seconds",
    "train": "step_seconds",
    "eval": "eval_seconds",
    "trace": "step_seconds",
}
"""The metric whose baseline a phase's deadline follows."""

NO_BASELINE: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Deadlines in seconds: ``launch`` counts from the start of the launch, ``phases`` from the
    last heartbeat of a rank.

    A phase that is not in ``phases`` has only the launch's deadline.
    """

    launch: float
    phases: Mapping[str, float] = field(default_factory=dict)


def deadlines(
    tier: Tier,
    expected: Mapping[str, float] = NO_BASELINE,
    *,
    epochs: float = 1.0,
    launch: float | None = None,
) -> Deadlines:
    """Return the deadlines of a launch that trains for ``epochs``.

    ``expected`` are the baseline's seconds, by metric. ``launch`` is the user's own deadline in
    seconds, which replaces the computed one of the whole launch.
    """
    phases = {
        phase: max(floor, PATIENCE * expected.get(BASELINES[phase], 0.0))
        for phase, floor in FLOOR_SECONDS[tier].items()
    }
    whole = sum(expected.get(name, 0.0) for name in ("setup_seconds", "eval_seconds"))
    whole += expected.get("epoch_seconds", 0.0) * epochs
    limit = launch or max(LAUNCH_SECONDS[tier], PATIENCE * whole)
    return Deadlines(
        launch=limit, phases={phase: min(limit, seconds) for phase, seconds in phases.items()}
    )
