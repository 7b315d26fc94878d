"""How long a launch and each of its phases may take: ten times what the baseline took, and a floor.

The floor is for what no baseline knows: another machine, a cold page cache, a first compile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from zerogate.protocol.cell import Tier

PATIENCE = 10.0
"""How many times slower than the baseline something may be before it counts as stuck."""

LAUNCH_SECONDS: Mapping[Tier, float] = {"cpu": 300.0, "gpu": 6 * 3600.0}
"""On cards for real data: the article's longest epoch took 6608 s. Who hangs is late in a phase
before."""

FLOOR_SECONDS: Mapping[Tier, Mapping[str, float]] = {
    "cpu": {"set-up": 120.0, "train": 60.0, "eval": 120.0, "trace": 120.0},
    "gpu": {"set-up": 900.0, "train": 300.0, "eval": 1800.0, "trace": 900.0},
}
"""By phase; of training, for one optimizer step."""

PROBE_SECONDS = 3600.0
"""What a probe launch has at most: a few steps at each of some sizes."""

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
    """Seconds from the start of the launch, and from a rank's last heartbeat in each phase.

    A phase that is not in ``phases`` has the launch's deadline alone.
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

    ``expected`` are the seconds that its baseline took, by metric. ``launch`` is what the user set
    for the whole launch.
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
