"""Evidence that a verdict rests on. The session gathers it; nothing here launches or measures."""

from __future__ import annotations

from dataclasses import dataclass

from zerogate.metrics.aggregation import Value
from zerogate.metrics.measurement import (
    SPEEDUP,
    SPEEDUP_AT_MAX,
    Measurement,
    speedup_at_max,
    speedup_over,
)
from zerogate.metrics.table import Metric
from zerogate.protocol.cell import Cell
from zerogate.verdicts.baselines import CellBaseline

SPEEDUPS = (SPEEDUP, SPEEDUP_AT_MAX)
"""Metrics that need the reference strategy's measurement too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherEnvironment:
    """The same cell, measured in this session with other packages.

    ``name`` is those packages in words. ``failure`` says why there is no measurement. ``repeats`` is
    the number of launches of each environment, before any were added to confirm a regression.
    """

    name: str
    repeats: int
    own: Measurement | None = None
    reference: Measurement | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that verdicts on one cell rest on.

    ``own`` is the cell's measurement, ``reference`` that of the reference strategy (DDP) if it was
    measured, and ``baseline`` the cell's baseline. With ``other`` the cell is compared with that
    environment, and with no baseline. ``hardware`` and ``host`` are the keys of this machine.
    """

    own: Measurement
    hardware: str
    host: str
    reference: Measurement | None = None
    baseline: CellBaseline | None = None
    other: OtherEnvironment | None = None

    @property
    def cell(self) -> Cell:
        """The cell that is judged."""
        return self.own.cell

    def value(self, metric: Metric) -> Value | None:
        """Return the measured value; None if it was not measured."""
        if metric.name not in SPEEDUPS:
            return self.own.value(metric.name)
        if self.reference is None:
            return None
        if metric.name == SPEEDUP:
            return speedup_over(self.reference, self.own)
        return speedup_at_max(self.reference, self.own)
