"""Aggregation of one launch: its ranks' records become one value per metric.

No other module aggregates over ranks.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import combinations
from operator import attrgetter

from zerogate.metrics.device_use import LaunchRecords, device_use
from zerogate.metrics.peak_flops import peak_flops
from zerogate.protocol.record import COLLECTIVES, Crossings, Phase, RankRecord

Value = float | int | tuple[float, ...]

WARMUP_STEPS = 3
"""Steps before a launch is steady: two are at learning rate 0, and optimizer states are created."""

PEAKS: dict[str, Phase] = {
    "peak_allocated_bytes": "steady",
    "peak_init_bytes": "init",
    "peak_first_step_bytes": "first_step",
    "peak_eval_bytes": "eval",
}

HOST_POOLS = {
    "peak_host_pool_bytes": "peak_bytes",
    "host_pool_bytes": "live_bytes",
    "peak_pinned_pool_bytes": "peak_pinned_bytes",
    "pinned_pool_bytes": "pinned_bytes",
}
"""Field of a steady phase's ``HostMemory`` by metric."""

DEVICE_PEAKS: dict[str, str] = {
    "nvml_process": "peak_device_bytes",
    "nvml_process_by_elimination": "peak_device_bytes",
    "nvml_device_delta": "peak_device_delta_bytes",
}
"""Metric of a process's peak by the source that it is from. The two are never compared."""

DEVICE_MEMORY = (*PEAKS, "live_bytes", "model_state_bytes", "leak_bytes_per_step")
"""Metrics that are not measured if device memory cannot be counted."""

SLOPE_POINTS = 200
"""Points, roughly, that ``slope`` thins a longer series to, because it takes all pairs of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchValues:
    """Metrics of one launch; ``per_rank`` has every rank's value of those taken from the worst rank.

    ``canary_seconds`` is the time of a fixed piece of the CPU's work, on the slowest rank.
    ``device_events`` are sentences on what happened on its devices that makes its seconds not
    comparable. ``skipped`` says for each optimizer step whether loss scaling skipped it.
    ``device_source`` is the host's source of peaks of devices, and ``peak_missing`` says why the launch
    does not have them by that source.
    """

    values: dict[str, Value]
    per_rank: dict[str, tuple[float, ...]]
    canary_seconds: float
    device_events: tuple[str, ...] = ()
    skipped: tuple[bool, ...] = ()
    device_source: str = ""
    peak_missing: str = ""


def launch_values(launch: LaunchRecords) -> LaunchValues:
    """Return the metrics of one launch, aggregated over its ranks.

    Memory and counts are the worst rank's, and times the slowest rank's. Samples are summed, and losses
    are averaged. Gradient norm, learning rate and quality are global already; they are rank 0's.
    """
    records = launch.ranks
    first = records[0]
    worst = {
        name: tuple(of_rank(record) for record in records)
        for name, of_rank in _worst_of(launch).items()
    }
    steps = _by_step(max, [record.step_seconds for record in records])
    step_seconds = statistics.median(steps[WARMUP_STEPS:] or steps)
    epochs = len(first.train_seconds)
    trained = _by_step(max, [record.train_seconds for record in records])
    epoch_seconds = statistics.median(_without_warmup(trained, steps))
    samples = sum(sum(record.step_samples) for record in records)
    values: dict[str, Value] = {
        **{name: max(numbers) for name, numbers in worst.items()},
        "loss": _by_step(statistics.fmean, [record.loss for record in records]),
        "gradient_norm": first.gradient_norm,
        "learning_rate": first.learning_rate,
        "samples_per_epoch": samples / epochs if samples % epochs else samples // epochs,
        **first.quality,
        "epoch_seconds": epoch_seconds,
        "step_seconds": step_seconds,
        "samples_per_second": samples / epochs / epoch_seconds,
    }
    if (used := utilization(first, step_seconds)) is not None:
        values["mfu"] = used
    if first.applied.get("mixed_precision") == "fp16":
        values["skipped_steps"] = sum(first.step_skipped)
    uses = device_use(launch)
    return LaunchValues(
        values=values,
        per_rank=worst,
        canary_seconds=max(record.canary_seconds for record in records),
        device_events=device_events(launch),
        skipped=first.step_skipped,
        device_source=next((use.source for use in uses.values() if use.source), ""),
        peak_missing=next(
            (f"rank {rank}: {use.missing}" for rank, use in uses.items() if use.missing), ""
        ),
    )


def _without_warmup(epochs: Sequence[float], steps: Sequence[float]) -> Iterator[float]:
    """Yield the seconds of each epoch, with the first one's warm-up at the pace of its other steps.

    Kernels load and buffers grow once per launch. An epoch on the card has thousands of steps, so that
    their share there is small.
    """
    first, *others = epochs
    count = len(steps) // len(epochs)
    steady = first - sum(steps[:WARMUP_STEPS])
    if count > WARMUP_STEPS and steady > 0:
        first = steady * count / (count - WARMUP_STEPS)
    yield first
    yield from others


def utilization(first: RankRecord, step_seconds: float) -> float | None:
    """Return the model FLOPs utilization (PaLM, arXiv 2204.02311, appendix B), as a fraction.

    The FLOPs are those counted in the traced step, instead of 6 per parameter and token. Kernels for
    which the profiler knows no formula are left out. None without a traced step, and for a card or a
    precision whose peak is not known.
    """
    if first.traced is None or first.device is None:
        return None
    # The applied precision: a DeepSpeed file may set another one than Accelerate's config.
    peak = peak_flops(first.device.name, first.applied.get("mixed_precision", ""))
    return first.traced.flops / step_seconds / peak if peak else None


def other_processes(launch: LaunchRecords) -> set[int]:
    """Return the pids of processes that were on a device of the launch and are none of its ranks.

    The ranks could not use the memory that these processes held.
    """
    return {pid for use in device_use(launch).values() for pid in use.other_processes}


def device_events(launch: LaunchRecords) -> tuple[str, ...]:
    """Return sentences on what happened on the devices that makes the seconds not comparable."""
    return tuple(
        f"rank {rank}: {event}" for rank, use in device_use(launch).items() for event in use.events
    )


OfRank = Callable[[RankRecord], float]


def _worst_of(launch: LaunchRecords) -> dict[str, OfRank]:
    """Return, for each metric that the worst rank decides, how to read it from one rank's record."""
    first = launch.ranks[0]
    return {**_memory(first), **_device(launch), **_traced(first), **_named(ALWAYS)}


ALWAYS = (
    "eval_seconds",
    "setup_seconds",
    "peak_host_bytes",
    "samples_missed",
    "samples_repeated",
    "eval_samples_miscounted",
)
"""Metrics that every record has, under the same names."""


def _memory(first: RankRecord) -> dict[str, OfRank]:
    if not first.memory:
        return {}
    peaks = {name: phase for name, phase in PEAKS.items() if phase in first.memory}
    found: dict[str, OfRank] = {
        name: partial(_of_phase, phase, "peak_allocated_bytes") for name, phase in peaks.items()
    }
    found["live_bytes"] = lambda record: record.memory["steady"].live_bytes
    found["leak_bytes_per_step"] = lambda record: slope(record.step_live_bytes[WARMUP_STEPS:])
    return found | (_host() if first.memory["steady"].host else {})


def _host() -> dict[str, OfRank]:
    """Return how to read what torch holds on the host from one rank's record."""
    return {
        **{name: partial(_of_host, field) for name, field in HOST_POOLS.items()},
        "host_leak_bytes_per_step": lambda record: slope(record.step_host_bytes[WARMUP_STEPS:]),
    }


def _device(launch: LaunchRecords) -> dict[str, OfRank]:
    """Return how to read the metrics of a card from one rank's record.

    The peak of a process is left out if the launch does not have it by the host's source.
    """
    records = launch.ranks
    if any(record.device is None for record in records):
        return {}
    found = _named(ALLOCATOR, within="device.")
    if all("steady" in record.memory for record in records):
        steady = "peak_requested_bytes", "peak_active_bytes"
        found |= {name: partial(_of_phase, "steady", name) for name in steady}
    uses = device_use(launch)
    if uses and not any(use.missing for use in uses.values()):
        source = next(use.source for use in uses.values())
        found[DEVICE_PEAKS[source]] = lambda record: uses[record.rank].peak_bytes
    return found


ALLOCATOR = ("peak_reserved_bytes", "allocator_retries", "allocator_ooms", "pinned_bytes")
"""Metrics that a card's allocators report for the whole run, under the same names."""


def _traced(first: RankRecord) -> dict[str, OfRank]:
    """Return how to read the counts of the traced step from one rank's record.

    Metrics have the names of the record's fields, or names made from them.
    """
    if first.traced is None:
        return {}
    names = ["operators", "flops", "disk_read_bytes", "disk_written_bytes"]
    names += ["model_state_bytes"] if first.memory else []
    crossings = [field.name for field in fields(Crossings)] if first.traced.crossings else []
    return {
        **_named(names, within="traced."),
        **_named(crossings, within="traced.crossings."),
    } | {
        f"{kind}_{name}": partial(_collective, kind, name)
        for kind in COLLECTIVES
        for name in ("calls", "payload_bytes")
    }


def _named(names: Iterable[str], *, within: str = "") -> dict[str, OfRank]:
    return {name: attrgetter(within + name) for name in names}


def _of_phase(phase: Phase, name: str, record: RankRecord) -> int:
    found: int = getattr(record.memory[phase], name)
    return found


def _of_host(name: str, record: RankRecord) -> int:
    found: int = getattr(record.memory["steady"].host, name)
    return found


def _collective(kind: str, name: str, record: RankRecord) -> int:
    assert record.traced is not None
    number: int = getattr(record.traced.collectives[kind], name)
    return number


def slope(values: Sequence[int]) -> int:
    """Return the rise from one value to the next, in whole bytes: the median over all pairs.

    This is the estimator of Theil and Sen. A single step that differs does not change it, and a leak of
    one tensor per step gives the bytes of that tensor. 0 for fewer than two values.
    """
    thinned = list(enumerate(values))[:: max(1, len(values) // SLOPE_POINTS)]
    rises = [(b - a) / (j - i) for (i, a), (j, b) in combinations(thinned, 2)]
    return round(statistics.median(rises)) if rises else 0


def _by_step(
    combine: Callable[[Iterable[float]], float], rows: Sequence[tuple[float, ...]]
) -> tuple[float, ...]:
    return tuple(combine(column) for column in zip(*rows, strict=True))
