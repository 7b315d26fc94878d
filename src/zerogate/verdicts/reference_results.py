"""Reference results: values that others published of cells; they hold on their hardware only.

The files are in ``baselines/published/``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from zerogate.config.strategy_file import ConfigError
from zerogate.config.validation import from_json
from zerogate.protocol.cell import Cell
from zerogate.protocol.record import STRICT, Strict


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceResults:
    """Published values by workload, strategy and metric. ``source`` is where they were printed.

    A ``max_micro_batch_size`` of 0 is "OOM at 1". Seconds were taken at the largest batch.
    """

    __pydantic_config__: ClassVar[Strict] = STRICT

    hardware: str
    source: str
    workloads: dict[str, dict[str, dict[str, int | float]]]

    def values(self, cell: Cell) -> dict[str, int | float]:
        """Return the values of ``cell`` by metric; empty if nobody published any."""
        return self.workloads.get(cell.workload, {}).get(cell.strategy, {})


def read_reference_results(baselines: Path) -> list[ReferenceResults]:
    """Return the results in ``published`` of ``baselines``, sorted by file name. Raises ConfigError."""
    found = []
    for path in sorted((baselines / "published").glob("*.json")):
        try:
            found.append(from_json(ReferenceResults, path.read_bytes()))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: {error}; expected hardware, source and workloads") from None
    return found
