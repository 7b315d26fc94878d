"""Numbers and verdicts in words, within 80 columns."""

from __future__ import annotations

import math

from zerogate.metrics.table import METRICS
from zerogate.protocol.units import GIB, MIB
from zerogate.verdicts.verdict import Verdict


def number(value: float | None, unit: str) -> str:
    """Return a value with its unit in a readable form; less than 1 MiB is exact to the byte."""
    if value is None:
        return "-"
    if unit == "bytes":
        return f"{value:,.0f} bytes" if value < MIB else binary(value)
    if unit == "seconds":
        return f"{value:.3g} s"
    if math.isfinite(value) and value == int(value):
        return f"{value:.0f} {unit}".strip()
    return f"{value:.4f} {unit}".strip()


def binary(size: float) -> str:
    """Return bytes in the form ``83.02 MiB`` or ``1.25 GiB``."""
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / MIB:.2f} MiB"


def percent(change: float) -> str:
    """Return a relative change in the form ``+26.1%``; a small change keeps digits that are not 0."""
    if not math.isfinite(change):
        return "changed"
    if change == 0:
        return "0%"
    return f"{change:+.1%}" if abs(change) >= 0.0005 else f"{change * 100:+.1e}%"


def sentence(verdict: Verdict) -> str:
    """Return one line with cell, metric, verdict, both numbers, the change and its limit."""
    name = METRICS[verdict.metric].title if verdict.metric in METRICS else verdict.metric
    head = f"{verdict.cell.id} {name.replace('_', ' ')}: {word(verdict)}"
    if verdict.status == "no_baseline" or verdict.expected is None or verdict.measured is None:
        return f"{head}: {verdict.note}" if verdict.note else head
    measured, expected = _both(verdict)
    step = f" at step {verdict.step}" if verdict.step is not None else ""
    line = f"{head}{step}: {measured}, {verdict.against} {expected}"
    if verdict.change is not None and verdict.tolerance is not None:
        line += f" ({_difference(verdict)}, limit {percent(verdict.tolerance).lstrip('+')})"
    return f"{line}; {verdict.note}" if verdict.note else line


def _difference(verdict: Verdict) -> str:
    """Return the change as a percentage, or in bytes if they are too few for a percentage."""
    assert verdict.measured is not None
    assert verdict.expected is not None
    assert verdict.change is not None
    if verdict.unit == "bytes" and 0 < abs(verdict.change) < 0.0005:
        difference = verdict.measured - verdict.expected
        return f"{difference:+,.0f} byte{'s' if abs(difference) != 1 else ''}"
    return percent(verdict.change)


def _both(verdict: Verdict) -> tuple[str, str]:
    """Return both numbers, with every digit if the readable form makes them look the same."""
    assert verdict.measured is not None
    assert verdict.expected is not None
    measured = number(verdict.measured, verdict.unit)
    expected = number(verdict.expected, verdict.unit)
    if measured == expected and verdict.measured != verdict.expected:
        measured, expected = (
            f"{value!r} {verdict.unit}".strip() for value in (verdict.measured, verdict.expected)
        )
    return measured, expected


def word(verdict: Verdict) -> str:
    """Return the status of a verdict as the terminal shows it."""
    return {
        "ok": "ok",
        "improved": "IMPROVED",
        "regressed": "REGRESSED",
        "no_baseline": "NO BASELINE",
        "not_comparable": "NOT COMPARABLE",
        "invalid": "INVALID",
    }[verdict.status]
