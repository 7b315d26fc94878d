"""Model states of a cell, beside what the ZeRO paper's formula says of its strategy."""

from __future__ import annotations

from zerogate.cell import Cell
from zerogate.model_states import paper_bytes_per_parameter
from zerogate.session import Session


def model_states(session: Session, cell: Cell) -> tuple[float, float] | None:
    """Bytes per parameter, measured and by the formula; None where they were not measured."""
    measurement = session.measurements.get(cell)
    if measurement is None or measurement.value("model_state_bytes") is None:
        return None
    settings = measurement.settings
    paper = paper_bytes_per_parameter(
        session.runner.strategy(cell),
        cell.world_size,
        4 if settings["dtype"] == "float32" else 2,
        cell.tier,
    )
    return measurement.scalar("model_state_bytes") / settings["parameters"], paper
