"""Comparability of a measurement with its baseline, and the reasons against it. Pure functions.

Each function that names a reason returns it as a sentence, or an empty string if it does not apply.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from zerogate.metrics.aggregation import DEVICE_PEAKS
from zerogate.metrics.measurement import Measurement, differing_settings
from zerogate.metrics.table import Metric
from zerogate.verdicts.baselines import CellBaseline
from zerogate.verdicts.evidence import SPEEDUPS, Evidence
from zerogate.verdicts.verdict import Status, change_of

CANARY_LIMIT = 0.2
"""Largest relative change of a core's speed since recording at which seconds are still comparable."""


def comparability(evidence: Evidence, baseline: CellBaseline, metric: Metric) -> tuple[Status, str]:
    """Return ``ok`` and "" if the metric may be compared with ``baseline``.

    Otherwise return the status that replaces the comparison, and the first reason.
    """
    for status, reason in _reasons(evidence, baseline, metric):
        if reason:
            return status, reason
    return "ok", ""


def _reasons(
    evidence: Evidence, baseline: CellBaseline, metric: Metric
) -> Iterator[tuple[Status, str]]:
    """Yield a status and a reason (or "") for all that can prevent a comparison; the first counts."""
    own, reference = evidence.own, evidence.reference
    # Other data are the user's choice; any other difference leaves the cell without a baseline.
    recorded = baseline.settings.get("data_origin")
    chosen = recorded is not None and recorded != own.settings["data_origin"]
    yield "not_comparable" if chosen else "no_baseline", other_settings(own, baseline)
    yield "not_comparable", other_budget(own, baseline, metric)
    if metric.budget is not None:
        yield "invalid", other_processes(own)
    if metric.scope == "hardware":
        yield "not_comparable", other_hardware(baseline, evidence.hardware)
    if metric.name in SPEEDUPS and reference is not None:
        beside = other_processes(reference) if metric.budget is not None else ""
        why = beside or device_conditions_note(reference)
        yield "invalid", f"DDP: {why}" if why else ""
    yield "not_comparable", quality_of_generated_data(own, metric)
    if metric.series:
        yield "not_comparable", other_skipped_steps(own, baseline)
    if metric.is_speed:
        if own.cell.tier == "gpu":
            yield "not_comparable", other_host(baseline, evidence.host)
        yield "invalid", device_conditions_note(own) or other_speed(own, baseline)


def missing_device_peak(own: Measurement, recorded: Container[str], metric: Metric) -> str:
    """Say why the peak of a process has no value that may be compared; empty for other metrics.

    That is so if a launch does not have it by its host's source, or if the baseline, which has the
    metrics ``recorded``, has it by a source that this host does not offer.
    """
    peaks = set(DEVICE_PEAKS.values())
    if metric.name not in peaks or not own.launches:
        return ""
    source = own.device_source
    if DEVICE_PEAKS.get(source) == metric.name:
        if own.peak_missing:
            return f"peak not judged: {own.peak_missing}"
        others = [name for name in peaks - {metric.name} if name in recorded]
        if metric.name in recorded or not others:
            return ""
        return f"peak not judged: recorded as {others[0]}, this host's source is {source}"
    if metric.name not in recorded:
        return ""
    why = f"this host's source is {source}" if source else "no device was read"
    return f"peak not judged: recorded from another source; {own.peak_missing or why}"


def other_settings(own: Measurement, baseline: CellBaseline) -> str:
    """Name the settings in which the baseline differs: none of the cell's metrics compare then."""
    differing = differing_settings(own.settings, baseline.settings)
    return f"the baseline is of other settings ({'; '.join(differing)})" if differing else ""


def other_budget(own: Measurement, baseline: CellBaseline, metric: Metric) -> str:
    """Name both memory budgets, in bytes, if the baseline's search for a batch size had another one."""
    if metric.budget is None or metric.budget not in baseline.metrics:
        return ""
    ours, recorded = own.value(metric.budget), baseline.metrics[metric.budget].value
    return f"recorded with a budget of {recorded} bytes, this is {ours}" if ours != recorded else ""


def other_processes(own: Measurement) -> str:
    """Name other processes that were on the device during the search and took memory from it."""
    if not own.probe_other_processes:
        return ""
    pids = ", ".join(map(str, own.probe_other_processes))
    return f"sizes not judged: process {pids} was on the device too"


def other_hardware(baseline: CellBaseline, hardware: str) -> str:
    """Name both machines if the baseline was recorded on another one."""
    recorded = baseline.provenance.hardware
    return "" if recorded == hardware else f"recorded on {recorded}, this is {hardware}"


def other_host(baseline: CellBaseline, host: str) -> str:
    """Name both hosts if the baseline is of another one: a card's seconds depend on it too."""
    recorded = baseline.provenance.software.get("host", host)
    return "" if recorded == host else f"recorded on a card of {recorded}, this is of {host}"


def quality_of_generated_data(own: Measurement, metric: Metric) -> str:
    """Say that generated data teach a full-size model nothing, if the metric is its quality."""
    full_size = own.cell.tier == "gpu"
    if not (full_size and metric.name in own.quality_better):
        return ""
    if own.settings["data_origin"] != "generated":
        return ""
    return "generated data teach a full-size model nothing in so few steps; see --data-dir"


def other_skipped_steps(own: Measurement, baseline: CellBaseline) -> str:
    """Name the optimizer steps that loss scaling skipped, if the baseline skipped others.

    A skipped step has a gradient norm of 0, and all later steps then train other weights.
    """
    norms = baseline.metrics.get("gradient_norm")
    if norms is None or not own.launches:
        return ""
    ours = {_steps(launch.skipped) for launch in own.launches}
    series = [launch for launch in norms.launches if isinstance(launch, tuple)]
    recorded = {_steps(norm == 0 for norm in launch) for launch in series}
    if ours == recorded and len(ours) == 1:
        return ""
    now, then = (" or ".join(sorted(map(_in_words, steps))) for steps in (ours, recorded))
    return f"loss scaling skipped other steps ({now}) than when recorded ({then})"


def _steps(holds: Iterable[bool]) -> tuple[int, ...]:
    return tuple(step for step, one in enumerate(holds) if one)


def _in_words(steps: tuple[int, ...]) -> str:
    return ", ".join(map(str, steps)) or "none"


def device_conditions(own: Measurement) -> tuple[str, ...]:
    """Return the conditions that make seconds not comparable: a shared device, device events."""
    if topology := own.settings.get("topology"):
        return (f"ranks share a device (topology: {topology})", *own.device_events)
    return own.device_events


def device_conditions_note(own: Measurement) -> str:
    """Name the conditions that make the seconds of a measurement not comparable."""
    found = device_conditions(own)
    return f"seconds not judged: {'; '.join(dict.fromkeys(found))}" if found else ""


def other_speed(own: Measurement, baseline: CellBaseline) -> str:
    """Name both speeds if this CPU is not as fast as when the baseline was recorded.

    The canary is the CPU's work. The speed of a card is read through NVML.
    """
    recorded = baseline.provenance.canary_seconds
    change = change_of(own.canary_seconds, recorded)
    if own.cell.tier == "gpu" or abs(change) <= CANARY_LIMIT:
        return ""
    times = (
        f"{1 + change:.1f} times slower" if change > 0 else f"{1 / (1 + change):.1f} times faster"
    )
    return (
        f"seconds not judged: this machine is {times} than when the baseline was recorded (a fixed "
        f"piece of work takes {own.canary_seconds * 1e3:.2f} ms now, and took {recorded * 1e3:.2f} ms)"
    )
