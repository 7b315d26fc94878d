"""A sweep as a heat map: releases from left to right, metrics of each cell from top to bottom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zerogate.config.text import one_line
from zerogate.metrics.table import METRICS
from zerogate.releases.evaluation import Change
from zerogate.releases.sweep import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = "RdBu_r"
DECADES = 6
"""Powers of ten on the colour scale: a change of one in a million is the palest that is still
visible, one of 100 % the darkest."""
PALEST = 0.15


def draw(package: str, cells: Sequence[str], rows: Sequence[Row], path: Path) -> str:
    """Draw ``rows`` against the first release that ran, into ``path`` (PNG), without the metrics
    that never changed. Return why it cannot be drawn here; empty if it was.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "no picture: matplotlib is not installed; pip install 'pytest-zerogate[picture]'"
    except Exception as error:  # It cannot read its own settings.
        return f"no picture: matplotlib: {one_line(str(error))}"
    metrics = {cell: _changed(cell, rows) for cell in cells}
    heights = [max(2, len(names)) for names in metrics.values()]
    figure = Figure(
        figsize=(3.2 + 0.62 * len(rows), 1.6 + 0.28 * sum(heights) + 0.5 * len(cells)),
        layout="constrained",
    )
    axes = figure.subplots(len(cells), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for cell, own in zip(cells, axes, strict=True):
        _draw_cell(own, cell, metrics[cell], rows)
    axes[-1].set_xticks(range(len(rows)), [row.release for row in rows], rotation=45, ha="right")
    figure.suptitle(f"{package}: change against the first release that ran", fontsize=11)
    figure.supxlabel(
        "red: worse, or not the same number; blue: better; grey: did not run", fontsize=8
    )
    figure.savefig(path, dpi=150, metadata={"Software": None})
    return ""


def _changed(cell: str, rows: Sequence[Row]) -> list[str]:
    """Return the metrics of ``cell`` that some release changed, in the metric table's order."""
    found = {one.metric for row in rows for one in row.since_first if one.cell == cell}
    order = list(METRICS)
    return sorted(
        found, key=lambda name: (order.index(name) if name in order else len(order), name)
    )


def _draw_cell(axes: Axes, cell: str, metrics: Sequence[str], rows: Sequence[Row]) -> None:
    shades = [[math.nan] * len(rows) for _ in metrics]
    for column, row in enumerate(rows):
        if word := _did_not_run(cell, row):
            axes.axvspan(column - 0.5, column + 0.5, color="0.85", zorder=1)
            axes.text(
                column, (max(2, len(metrics)) - 1) / 2, word, rotation=90, ha="center", va="center",
                fontsize=7, color="0.3", zorder=3,
            )  # fmt: skip
            continue
        for one in row.since_first:
            if one.cell == cell:
                line = metrics.index(one.metric)
                shades[line][column] = shade = _shade(one)
                axes.text(
                    column, line, _words(one), ha="center", va="center", fontsize=6, zorder=3,
                    color="white" if abs(shade) > 0.7 else "black",
                )  # fmt: skip
    if metrics:
        axes.imshow(shades, cmap=COLOURS, vmin=-1, vmax=1, aspect="auto", zorder=2)
    else:
        axes.text(0, 0.5, "no release changed any metric", va="center", fontsize=8)
    axes.set_xlim(-0.5, len(rows) - 0.5)
    axes.set_ylim(max(2, len(metrics)) - 0.5, -0.5)
    axes.set_yticks(range(len(metrics)), metrics, fontsize=8)
    axes.set_xticks([one - 0.5 for one in range(1, len(rows))], minor=True)
    axes.grid(which="minor", color="0.9")
    axes.tick_params(which="both", length=0)
    axes.set_title(cell, fontsize=9, loc="left")


def _did_not_run(cell: str, row: Row) -> str:
    if row.invalid:
        return "not installable"
    if cell in row.failures:
        return row.failures[cell].partition(":")[0]
    return "cannot run here" if cell in row.absent else ""


def _ratio(one: Change) -> float:
    """Return the size of the change relative to the old value: 0.1 is 10 %.

    It is infinite if either value is missing, or the old one is zero.
    """
    if one.was is None or one.now is None or not one.was:
        return math.inf
    ratio = abs(one.now - one.was) / abs(one.was)
    return math.inf if math.isnan(ratio) else ratio


def _shade(one: Change) -> float:
    ratio = _ratio(one)
    level = 1.0 if ratio >= 1 else 1 + math.log10(max(ratio, 10.0**-DECADES)) / DECADES
    strength = PALEST + (1 - PALEST) * level
    return strength if one.worse else -strength


def _words(one: Change) -> str:
    """Return a short label of the change: a signed percentage, or a factor from 10 on."""
    ratio = _ratio(one)
    if one.now is None or not math.isfinite(one.now):
        return "none"
    if math.isinf(ratio) or one.was is None:
        return "new"
    sign = "+" if one.now > one.was else "-"
    if ratio < 0.005:
        return "<1%"
    return f"{sign}{ratio:.0%}" if ratio < 10 else f"{sign}{ratio:.0f}x"
