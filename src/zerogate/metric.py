"""The metric table: every number that is judged, with unit, direction, scope and tolerance.

The single source for all of these. ``portable`` metrics are the same on any machine for the same
package releases; ``hardware`` metrics are seconds and what follows from them, and memory that a driver
or the host's kernel has a part in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from zerogate.cell import Tier
from zerogate.on_cards import ON_CARDS
from zerogate.record import COLLECTIVES

Better = Literal["lower", "higher", "equal"]
Scope = Literal["portable", "hardware"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One named number, or one series of numbers with an entry per optimizer step.

    A change worse than ``max(relative * |baseline|, absolute)`` is a regression; a baseline that
    saw a larger spread among its own launches widens that (``verdict``). ``better: equal`` means
    that a change in either direction is one. ``series`` are compared step by step. ``budget`` names
    the metric that says under which memory budget this one was found, for what the search for the
    largest batch finds; values under different budgets are not compared.
    """

    name: str
    unit: str
    better: Better
    scope: Scope
    title: str
    relative: float = 0.0
    absolute: float = 0.0
    series: bool = False
    budget: str | None = None

    def on(self, tier: Tier) -> Metric:
        """The metric with the tolerances of ``tier``; the table's are the cpu tier's."""
        if tier == "cpu" or self.name not in ON_CARDS:
            return self
        relative, absolute = ON_CARDS[self.name]
        return replace(self, relative=relative, absolute=absolute)

    @property
    def is_speed(self) -> bool:
        """Whether it is seconds or follows from them: a machine that is slow today changes it."""
        return self.scope == "hardware" and self.unit not in ("bytes", "times")


def _bytes(name: str, title: str, **more: Any) -> Metric:
    values = {"unit": "bytes", "better": "lower", "scope": "portable"} | more
    return Metric(name=name, title=title, **values)


def _seconds(name: str, title: str) -> Metric:
    # Coarse, because one launch on a shared machine is: among three launches of one recording eval
    # times differed by up to 38 %, step times by 31 %, and short ones by more.
    return Metric(
        name=name,
        unit="seconds",
        better="lower",
        scope="hardware",
        title=title,
        relative=0.5,
        absolute=0.5,
    )


def _rate(name: str, unit: str, title: str, *, budget: str | None = None) -> Metric:
    """What follows from seconds, and is as coarse."""
    return Metric(
        name=name,
        unit=unit,
        better="higher",
        scope="hardware",
        title=title,
        relative=0.4,
        budget=budget,
    )


def _batch(prefix: str, of: str, title: str) -> tuple[Metric, ...]:
    """What the search for the largest batch finds; the line that peaks follow moves before it."""
    budget = f"{prefix}batch_budget_bytes"
    return (
        Metric(
            name=f"max_{of}",
            unit="samples",
            better="higher",
            scope="portable",
            title=title,
            budget=budget,
        ),
        _bytes(budget, f"{title}: budget", better="equal", budget=budget),
        _bytes(f"{prefix}batch_base_bytes", f"{title}: bytes without a sample", budget=budget),
        _bytes(f"{prefix}batch_bytes_per_sample", f"{title}: bytes per sample", budget=budget),
        _bytes(
            f"{prefix}batch_headroom_bytes", f"{title}: headroom", better="higher", budget=budget
        ),
        _rate(
            f"{prefix}samples_per_second_at_max",
            "samples/s",
            f"{title}: samples per second",
            budget=budget,
        ),
    )


def _count(name: str, title: str, unit: str, better: Better = "lower") -> Metric:
    """Something exact: one more of it is a change."""
    return Metric(name=name, unit=unit, better=better, scope="portable", title=title)


def _collective(kind: str) -> tuple[Metric, Metric]:
    """Of the optimizer step that is traced; of the rank that has most."""
    title = kind.replace("_", "-") + "s"
    return (
        _count(f"{kind}_calls", f"{title} a step", "calls"),
        _bytes(f"{kind}_payload_bytes", f"{title}: payload a step"),
    )


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _bytes("peak_allocated_bytes", "peak allocated"),
        # Context, kernels and libraries are in it, which change with the driver.
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
        _bytes("pinned_bytes", "peak of pinned host memory", scope="hardware", relative=0.02),
        Metric(
            name="allocator_retries",
            unit="times",
            better="lower",
            scope="hardware",
            title="caches given back to make room",
        ),
        Metric(
            name="allocator_ooms",
            unit="times",
            better="lower",
            scope="hardware",
            title="allocations that found no room",
        ),
        _bytes("peak_init_bytes", "peak allocated, init"),
        _bytes("peak_first_step_bytes", "peak allocated, first step"),
        _bytes("peak_eval_bytes", "peak allocated, eval"),
        _bytes("live_bytes", "live after a step"),
        _bytes("model_state_bytes", "model states"),
        _bytes("leak_bytes_per_step", "memory slope a step"),
        *(metric for kind in COLLECTIVES for metric in _collective(kind)),
        _count("operators", "operators a step", "operators"),
        # Fewer are no improvement: something was left out.
        _count("flops", "floating point operations a step", "flops", "equal"),
        _bytes("disk_read_bytes", "read from disk a step"),
        _bytes("disk_written_bytes", "written to disk a step"),
        Metric(
            name="loss",
            unit="nats",
            better="equal",
            scope="portable",
            title="loss by step",
            relative=1e-3,
            series=True,
        ),
        # Norms of small gradients amplify what another CPU's vector width does to the last digits.
        Metric(
            name="gradient_norm",
            unit="",
            better="equal",
            scope="portable",
            title="gradient norm by step",
            relative=1e-2,
            series=True,
        ),
        Metric(
            name="learning_rate",
            unit="",
            better="equal",
            scope="portable",
            title="learning rate by step",
            relative=1e-6,
            absolute=1e-12,
            series=True,
        ),
        # Of fp16's loss scaling; there is none in other precisions.
        _count("skipped_steps", "optimizer steps skipped for an overflow", "steps"),
        _count("samples_per_epoch", "samples per epoch", "samples", "equal"),
        _count("samples_missed", "samples that no rank drew", "samples"),
        _count("samples_repeated", "samples drawn again", "samples"),
        _count("eval_samples_miscounted", "samples scored too often or not at all", "samples"),
        Metric(name="f1", unit="", better="higher", scope="portable", title="F1", absolute=0.04),
        Metric(
            name="accuracy",
            unit="",
            better="higher",
            scope="portable",
            title="accuracy",
            absolute=0.04,
        ),
        Metric(name="bleu", unit="", better="higher", scope="portable", title="BLEU", absolute=3.0),
        Metric(
            name="perplexity",
            unit="",
            better="lower",
            scope="portable",
            title="perplexity",
            relative=0.03,
        ),
        *_batch("", "micro_batch_size", "largest micro-batch"),
        *_batch("eval_", "eval_batch_size", "largest eval batch"),
        _seconds("epoch_seconds", "train time per epoch"),
        _seconds("step_seconds", "median step time"),
        _seconds("eval_seconds", "eval time"),
        _seconds("setup_seconds", "set-up time"),
        _rate("samples_per_second", "samples/s", "samples per second"),
        _rate("mfu", "", "model FLOPs utilization"),
        _rate("speedup_over_ddp", "x", "speedup over DDP"),
        _rate(
            "speedup_over_ddp_at_max",
            "x",
            "speedup over DDP, each at its largest micro-batch",
            budget="batch_budget_bytes",
        ),
        Metric(
            name="peak_host_bytes",
            unit="bytes",
            better="lower",
            scope="hardware",
            title="peak host memory",
            relative=0.15,
        ),
    )
}


def metric_named(name: str, quality_better: dict[str, str] | None = None) -> Metric:
    """The metric of that name; a workload's own quality metric need not be in the table.

    Raises KeyError for a name that is neither.
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
