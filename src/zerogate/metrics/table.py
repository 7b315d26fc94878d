"""The metric table: every number that is judged, with unit, direction, scope and tolerance.

The single source for all of these. ``portable`` metrics are the same on any machine for the same
package releases; ``hardware`` metrics are seconds and what follows from them, and memory that a driver
or the host's kernel has a part in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from zerogate.protocol.cell import Tier
from zerogate.protocol.record import COLLECTIVES
from zerogate.protocol.units import MIB

Better = Literal["lower", "higher", "equal"]
Scope = Literal["portable", "hardware"]

# What metrics may change on cards, relative and absolute. On the cpu tier a run repeats itself to the
# byte; on a card it does not: CUDA's allocator hands out whole blocks, which of them depends on when
# streams were done with others; sums of atomics have no order; dropout and half precision carry that
# on. Seconds in turn are steadier than on a shared CPU. None was measured on a card yet
# (docs/gpu-results.md). Three times the spread of a baseline's own launches widens them.
BLOCKS = (0.005, 2.0 * MIB)
"""A large block may stay whole with 1 MiB left over (torch's c10/cuda/CUDACachingAllocator.cpp)."""
CARD_SECONDS = (0.1, 0.02)
CARD_RATE = (0.1, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One named number, or one series of numbers with an entry per optimizer step.

    A change worse than ``max(relative * |baseline|, absolute)`` is a regression; a baseline that
    saw a larger spread among its own launches widens that (``verdict``). ``better: equal`` means
    that a change in either direction is one. ``on_card`` are the two limits on cards, where those are
    others. ``series`` are compared step by step. ``budget`` names
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
    on_card: tuple[float, float] | None = None
    series: bool = False
    budget: str | None = None

    def on(self, tier: Tier) -> Metric:
        """The metric with the tolerances of ``tier``."""
        if tier == "cpu" or self.on_card is None:
            return self
        relative, absolute = self.on_card
        return replace(self, relative=relative, absolute=absolute)

    @property
    def is_speed(self) -> bool:
        """Whether it is seconds or follows from them: a machine that is slow today changes it."""
        return self.scope == "hardware" and self.unit not in ("bytes", "times")


def _bytes(name: str, title: str, **more: Any) -> Metric:
    values = {"unit": "bytes", "better": "lower", "scope": "portable"} | more
    return Metric(name=name, title=title, **values)


def _seconds(
    name: str, title: str, *, on_card: tuple[float, float] | None = CARD_SECONDS
) -> Metric:
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
        on_card=on_card,
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
        on_card=CARD_RATE,
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
            on_card=(0.02, 0.0),
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
            on_card=(0.01, 0.0),
            budget=budget,
        ),
        # What one sample more did not fit into: less than a sample takes says nothing.
        _bytes(
            f"{prefix}batch_headroom_bytes",
            f"{title}: headroom",
            better="higher",
            on_card=(0.0, 1024.0 * MIB),
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
    """Something exact: one more of it is a change."""
    return Metric(name=name, unit=unit, better=better, scope="portable", title=title)


def _collective(kind: str) -> tuple[Metric, Metric]:
    """Of the optimizer step that is traced; of the rank that has most."""
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
    """How often something happened that depends on the card."""
    return Metric(name=name, unit="times", better="lower", scope="hardware", title=title)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _bytes("peak_allocated_bytes", "peak allocated", on_card=BLOCKS),
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
        _bytes(
            "pinned_bytes",
            "peak of pinned host memory",
            scope="hardware",
            relative=0.02,
            on_card=(0.02, 2.0 * MIB),
        ),
        _times("allocator_retries", "caches given back to make room"),
        _times("allocator_ooms", "allocations that found no room"),
        _bytes("peak_init_bytes", "peak allocated, init", on_card=BLOCKS),
        _bytes("peak_first_step_bytes", "peak allocated, first step", on_card=BLOCKS),
        _bytes("peak_eval_bytes", "peak allocated, eval", on_card=BLOCKS),
        _bytes("live_bytes", "live after a step", on_card=BLOCKS),
        _bytes("model_state_bytes", "model states", on_card=BLOCKS),
        # On cards as ``invariant.judge_grows``.
        _bytes("leak_bytes_per_step", "memory slope a step", on_card=(0.0, 4096.0)),
        *(metric for kind in COLLECTIVES for metric in _collective(kind)),
        _count("operators", "operators a step", "operators"),
        # Fewer are no improvement: something was left out.
        _count("flops", "floating point operations a step", "flops", "equal"),
        _bytes("disk_read_bytes", "read from disk a step"),
        _bytes("disk_written_bytes", "written to disk a step"),
        _by_step("loss", "loss by step", unit="nats", relative=1e-3, on_card=(0.02, 0.0)),
        # Norms of small gradients amplify what another CPU's vector width does to the last digits.
        _by_step("gradient_norm", "gradient norm by step", relative=1e-2, on_card=(0.1, 0.0)),
        _by_step("learning_rate", "learning rate by step", relative=1e-6, absolute=1e-12),
        # Of fp16's loss scaling; there is none in other precisions.
        replace(
            _count("skipped_steps", "optimizer steps skipped for an overflow", "steps"),
            on_card=(0.0, 2.0),
        ),
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
