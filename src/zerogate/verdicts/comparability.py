"""What stands between a measurement and its baseline: why the two may not be compared. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from zerogate.metrics.measurement import Measurement, differing_settings
from zerogate.metrics.table import Metric
from zerogate.verdicts.baselines import CellBaseline
from zerogate.verdicts.verdict import change_of

CANARY_LIMIT = 0.2
"""A core this much slower or faster than at recording cannot be held to the recorded seconds."""


def comparable(measurement: Measurement, baseline: CellBaseline) -> str:
    """Why the two cannot be compared at all; empty when they can."""
    differing = differing_settings(measurement.settings, baseline.settings)
    return f"the baseline is of other settings ({'; '.join(differing)})" if differing else ""


def same_hardware(baseline: CellBaseline, hardware: str) -> str:
    """Why what depends on the hardware cannot be held to the baseline; empty when it can."""
    recorded = baseline.provenance.hardware
    return "" if recorded == hardware else f"recorded on {recorded}, this is {hardware}"


def taught(measurement: Measurement, metric: Metric) -> str:
    """Why quality says nothing of the stack; empty where it does."""
    full_size = measurement.cell.tier == "gpu"
    if not (full_size and metric.name in measurement.quality_better):
        return ""
    if measurement.settings["data_origin"] != "generated":
        return ""
    return "generated data teach a full-size model nothing in so few steps; see --data-dir"


def alone(measurement: Measurement) -> str:
    """Why batch sizes say nothing of the stack; empty where they do."""
    if not measurement.probe_strangers:
        return ""
    pids = ", ".join(map(str, measurement.probe_strangers))
    return f"sizes not judged: process {pids} was on the device too"


def same_steps(measurement: Measurement, baseline: CellBaseline) -> str:
    """Why series are not of the same optimizer steps: loss scaling skips one where it overflows, with a
    norm of 0, and all that follows is then of other weights. Empty where they are.
    """
    norms = baseline.metrics.get("gradient_norm")
    if norms is None or not measurement.launches:
        return ""
    ours = {_steps(launch.skipped) for launch in measurement.launches}
    series = [launch for launch in norms.launches if isinstance(launch, tuple)]
    theirs = {_steps(norm == 0 for norm in launch) for launch in series}
    if ours == theirs and len(ours) == 1:
        return ""
    own, recorded = (" or ".join(sorted(map(_named, steps))) for steps in (ours, theirs))
    return f"loss scaling skipped other steps ({own}) than when recorded ({recorded})"


def _steps(holds: Iterable[bool]) -> tuple[int, ...]:
    return tuple(step for step, one in enumerate(holds) if one)


def _named(steps: tuple[int, ...]) -> str:
    return ", ".join(map(str, steps)) or "none"


def same_host(baseline: CellBaseline, host: str) -> str:
    """Why seconds of a card are not held to the baseline's: a card's host has a part in them."""
    recorded = baseline.provenance.software.get("host", host)
    return "" if recorded == host else f"recorded on a card of {recorded}, this is of {host}"


def undisturbed(measurement: Measurement) -> str:
    """What happened to the devices that makes seconds worthless; empty where nothing did."""
    if not measurement.troubles:
        return ""
    return f"seconds not judged: {'; '.join(dict.fromkeys(measurement.troubles))}"


def same_speed(measurement: Measurement, baseline: CellBaseline) -> str:
    """Why seconds say nothing of the stack, on the same hardware; empty when they do."""
    recorded = baseline.provenance
    if why := undisturbed(measurement):
        return why
    change = change_of(measurement.canary_seconds, recorded.canary_seconds)
    # It is the CPU's work; of cards NVML tells.
    if measurement.cell.tier == "gpu" or abs(change) <= CANARY_LIMIT:
        return ""
    return (
        f"seconds not judged: this machine is {_times(change)} than when the baseline was "
        f"recorded (a fixed piece of work takes {measurement.canary_seconds * 1e3:.2f} ms, then "
        f"{recorded.canary_seconds * 1e3:.2f} ms)"
    )


def _times(change: float) -> str:
    return (
        f"{1 + change:.1f} times slower" if change > 0 else f"{1 / (1 + change):.1f} times faster"
    )
