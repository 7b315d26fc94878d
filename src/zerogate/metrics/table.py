"""The metric table: every measured number, with unit, direction, scope and tolerance.

The limits of claims that need no baseline are in ``verdicts.invariants``. ``portable`` metrics are the
same on any machine for the same package releases. ``hardware`` metrics are seconds, values derived
from seconds, and memory that depends on the driver or on the host's kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from zerogate.protocol.cell import Tier
from zerogate.protocol.record import COLLECTIVES
from zerogate.protocol.units import MIB

Better = Literal["lower", "higher", "equal"]
Scope = Literal["portable", "hardware"]


# Tolerances on cards, relative and absolute. On the cpu tier a run repeats itself to the byte; on a
# card it does not. CUDA's allocator hands out whole blocks, and which ones depends on when streams
# release others. Sums by atomics have no fixed order; dropout and half precision amplify the
# difference. Seconds, in turn, are steadier than on a shared CPU. None of these tolerances was measured
# on a card yet (docs/gpu-results.md).
class Limits(NamedTuple):
    """Tolerances on cards. The larger of the two counts, in the metric's unit."""

    relative: float = 0.0
    absolute: float = 0.0


BLOCKS = Limits(relative=0.005, absolute=2.0 * MIB)
"""Tolerance of allocated bytes: torch leaves a large block whole if no more than 1 MiB is left over
(c10/cuda/CUDACachingAllocator.cpp).
"""
CARD_SECONDS = Limits(relative=0.1, absolute=0.02)
CARD_RATE = Limits(relative=0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A named number, or a named series with one number per optimizer step.

    A change worse than ``max(relative * |baseline|, absolute)`` is a regression. Three times the spread
    of the baseline's own launches widens this limit (``verdicts.verdict``). With ``better: equal`` a
    change in either direction is a regression.

    ``on_card`` are the limits on cards, if they differ there. A ``series`` has one number per optimizer
    step and is compared step by step. ``budget`` is set for what the search for the largest batch
    finds. It names the metric with that search's memory budget: under different budgets, nothing is
    compared.
    """

    name: str
    unit: str
    better: Better
    scope: Scope
    title: str
    relative: float = 0.0
    absolute: float = 0.0
    on_card: Limits | None = None
    series: bool = False
    budget: str | None = None

    def on(self, tier: Tier) -> Metric:
        """Return the metric with the tolerances of ``tier``."""
        if tier == "cpu" or self.on_card is None:
            return self
        relative, absolute = self.on_card
        return replace(self, relative=relative, absolute=absolute)

    @property
    def is_speed(self) -> bool:
        """True for seconds and values derived from them: a machine that is slow today changes them."""
        return self.scope == "hardware" and self.unit not in ("bytes", "times")

    @property
    def is_quality(self) -> bool:
        """True for metrics that score the model, as F1 and perplexity do."""
        return not self.unit and not self.series and self.scope == "portable"


def _bytes(name: str, title: str, **more: Any) -> Metric:
    values = {"unit": "bytes", "better": "lower", "scope": "portable"} | more
    return Metric(name=name, title=title, **values)


def _seconds(name: str, title: str, *, on_card: Limits | None = CARD_SECONDS) -> Metric:
    # The tolerance is coarse because single launches on a shared machine vary: among three launches
    # of one recording eval times differed by up to 38 %, step times by 31 %, and shorter ones by more.
    return Metric(
        name=name,
        unit="seconds",
        better="lower",
        scope="hardware",
        title=title,
        relative=0.5,
        absolute=0.5,
        on_card=on_card,
    )


def _rate(name: str, unit: str, title: str, *, budget: str | None = None) -> Metric:
    """Return a metric that is derived from seconds; its tolerance is as coarse as theirs."""
    return Metric(
        name=name,
        unit=unit,
        better="higher",
        scope="hardware",
        title=title,
        relative=0.4,
        on_card=CARD_RATE,
        budget=budget,
    )


def _batch(prefix: str, of: str, title: str) -> tuple[Metric, ...]:
    """Return what the search for the largest batch finds; bytes change before the batch does."""
    budget = f"{prefix}batch_budget_bytes"
    return (
        Metric(
            name=f"max_{of}",
            unit="samples",
            better="higher",
            scope="portable",
            title=title,
            on_card=Limits(relative=0.02),
            budget=budget,
        ),
        _bytes(budget, f"{title}: budget", better="equal", budget=budget),
        _bytes(
            f"{prefix}batch_base_bytes",
            f"{title}: bytes without a sample",
            on_card=BLOCKS,
            budget=budget,
        ),
        _bytes(
            f"{prefix}batch_bytes_per_sample",
            f"{title}: bytes per sample",
            on_card=Limits(relative=0.01),
            budget=budget,
        ),
        # One more sample did not fit into it, so a change by less than a sample's bytes says nothing.
        _bytes(
            f"{prefix}batch_headroom_bytes",
            f"{title}: headroom",
            better="higher",
            on_card=Limits(absolute=1024.0 * MIB),
            budget=budget,
        ),
        _rate(
            f"{prefix}samples_per_second_at_max",
            "samples/s",
            f"{title}: samples per second",
            budget=budget,
        ),
    )


def _count(name: str, title: str, unit: str, better: Better = "lower") -> Metric:
    """Return an exact metric: a difference of one is a change."""
    return Metric(name=name, unit=unit, better=better, scope="portable", title=title)


def _collective(kind: str) -> tuple[Metric, Metric]:
    """Return the calls and the payload of one kind of collective in the traced step."""
    title = kind.replace("_", "-") + "s"
    return (
        _count(f"{kind}_calls", f"{title} a step", "calls"),
        _bytes(f"{kind}_payload_bytes", f"{title}: payload a step"),
    )


def _by_step(name: str, title: str, *, unit: str = "", **limits: Any) -> Metric:
    return Metric(
        name=name, unit=unit, better="equal", scope="portable", title=title, series=True, **limits
    )


def _times(name: str, title: str) -> Metric:
    """Return a count of events that depend on the card."""
    return Metric(name=name, unit="times", better="lower", scope="hardware", title=title)


def _quality(name: str, title: str, *, better: Better = "higher", **limits: Any) -> Metric:
    """Return a score of the model, which has no unit."""
    return Metric(name=name, unit="", better=better, scope="portable", title=title, **limits)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _bytes("peak_allocated_bytes", "peak allocated", on_card=BLOCKS),
        # It includes context, kernels and libraries, which change with the driver.
        _bytes(
            "peak_device_bytes",
            "peak of the process (NVML)",
            scope="hardware",
            absolute=192 * 2**20,
        ),
        _bytes(
            "peak_device_delta_bytes",
            "rise of the device (NVML)",
            scope="hardware",
            absolute=192 * 2**20,
        ),
        _bytes("peak_reserved_bytes", "peak reserved", scope="hardware", relative=0.02),
        _bytes("peak_active_bytes", "peak active", scope="hardware", relative=0.02),
        _bytes("peak_requested_bytes", "peak requested", scope="hardware", relative=0.01),
        _bytes(
            "pinned_bytes",
            "peak of pinned host memory",
            scope="hardware",
            relative=0.02,
            on_card=Limits(relative=0.02, absolute=2.0 * MIB),
        ),
        _times("allocator_retries", "caches given back to make room"),
        _times("allocator_ooms", "allocations that found no room"),
        _bytes("peak_init_bytes", "peak allocated, init", on_card=BLOCKS),
        _bytes("peak_first_step_bytes", "peak allocated, first step", on_card=BLOCKS),
        _bytes("peak_eval_bytes", "peak allocated, eval", on_card=BLOCKS),
        _bytes("live_bytes", "live after a step", on_card=BLOCKS),
        _bytes("model_state_bytes", "model states", on_card=BLOCKS),
        # On cards, as much as ``invariants.judge_grows`` allows.
        _bytes("leak_bytes_per_step", "memory slope a step", on_card=Limits(absolute=4096.0)),
        *(metric for kind in COLLECTIVES for metric in _collective(kind)),
        _count("operators", "operators a step", "operators"),
        # Fewer are no improvement: the step left something out.
        _count("flops", "floating point operations a step", "flops", "equal"),
        # What torch holds on the host, and what crosses: only the emulated device counts them.
        _bytes("host_state_bytes", "model states on the host"),
        _bytes("peak_host_pool_bytes", "peak of tensors on the host"),
        _bytes("host_pool_bytes", "tensors on the host after a step"),
        _bytes("peak_pinned_pool_bytes", "peak of pinned tensors"),
        _bytes("pinned_pool_bytes", "pinned tensors after a step"),
        _bytes("host_leak_bytes_per_step", "slope of tensors on the host a step"),
        _bytes("copied_to_device_bytes", "copied to the device a step"),
        _bytes("copied_to_host_bytes", "copied to the host a step"),
        _count("host_waits", "waits of the host for the device a step", "waits"),
        _bytes("disk_read_bytes", "read from disk a step"),
        _bytes("disk_written_bytes", "written to disk a step"),
        _by_step("loss", "loss by step", unit="nats", relative=1e-3, on_card=Limits(relative=0.02)),
        # Another CPU's vector width changes the last digits, and norms of small gradients amplify that.
        _by_step(
            "gradient_norm", "gradient norm by step", relative=1e-2, on_card=Limits(relative=0.1)
        ),
        _by_step("learning_rate", "learning rate by step", relative=1e-6, absolute=1e-12),
        # Only fp16 has loss scaling.
        replace(
            _count("skipped_steps", "optimizer steps skipped for an overflow", "steps"),
            on_card=Limits(absolute=2.0),
        ),
        _count("samples_per_epoch", "samples per epoch", "samples", "equal"),
        _count("samples_missed", "samples that no rank drew", "samples"),
        _count("samples_repeated", "samples drawn again", "samples"),
        _count("eval_samples_miscounted", "samples scored too often or not at all", "samples"),
        _quality("f1", "F1", absolute=0.04),
        _quality("accuracy", "accuracy", absolute=0.04),
        _quality("bleu", "BLEU", absolute=3.0),
        _quality("perplexity", "perplexity", better="lower", relative=0.03),
        *_batch("", "micro_batch_size", "largest micro-batch"),
        *_batch("eval_", "eval_batch_size", "largest eval batch"),
        _seconds("epoch_seconds", "train time per epoch"),
        _seconds("step_seconds", "median step time"),
        _seconds("eval_seconds", "eval time"),
        _seconds("setup_seconds", "set-up time", on_card=None),
        _rate("samples_per_second", "samples/s", "samples per second"),
        _rate("mfu", "", "model FLOPs utilization"),
        _rate("speedup_over_ddp", "x", "speedup over DDP"),
        _rate(
            "speedup_over_ddp_at_max",
            "x",
            "speedup over DDP, each at its largest micro-batch",
            budget="batch_budget_bytes",
        ),
        _bytes("peak_host_bytes", "peak host memory", scope="hardware", relative=0.15),
    )
}


def metric_named(name: str, quality_better: dict[str, str] | None = None) -> Metric:
    """Return the metric of that name; a workload's own quality metric need not be in the table.

    ``quality_better`` has the directions of such metrics, ``lower`` or ``higher``, by name. Raises
    KeyError for a name that is in neither.
    """
    if name in METRICS:
        return METRICS[name]
    better = (quality_better or {})[name]
    if better not in ("lower", "higher"):
        raise KeyError(name)
    return Metric(
        name=name,
        unit="",
        better="higher" if better == "higher" else "lower",
        scope="portable",
        title=name.replace("_", " "),
        relative=0.03,
    )
