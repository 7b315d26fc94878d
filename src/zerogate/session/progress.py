"""Progress of a session, as it is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from zerogate.protocol.cell import Cell


@dataclass(frozen=True, slots=True)
class ProgressUpdate:
    """One line on what the session does now.

    A cell is ``done`` or ``failed`` once for its training, and once for each search.
    """

    text: str
    cell: Cell | None = None
    state: Literal["started", "done", "failed"] = "started"


Progress = Callable[[ProgressUpdate], None]
