"""Builder of a rank's record."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from zerogate.protocol.atomic_write import write_json
from zerogate.protocol.heartbeat import Pulse
from zerogate.protocol.job import Job
from zerogate.protocol.record import SCHEMA_VERSION, Failure, RankRecord, record_path
from zerogate.protocol.redact import masked


class RecordBuilder:
    """Builder of a rank's record: it writes what is known so far even if training fails."""

    def __init__(self, job: Job, rank: int) -> None:
        self._job = job
        self._rank = rank
        self._values: dict[str, Any] = {}
        self._last: Callable[[], dict[str, Any]] = dict
        self._pulse = Pulse(Path(job.record_folder), rank)
        self.phase = "set-up"

    @property
    def phase(self) -> str:
        """Phase that the rank is in; every change writes a heartbeat."""
        return self._phase

    @phase.setter
    def phase(self, name: str) -> None:
        self._phase = name
        self.beat(0)

    def beat(self, step: int) -> None:
        """Write a heartbeat: ``step`` steps of the phase are done."""
        self._pulse.beat(self._phase, step)

    def add(self, **values: Any) -> None:
        self._values.update(values)

    def add_at_end(self, known: Callable[[], dict[str, Any]]) -> None:
        """Add the values that ``known`` returns when the rank ends, for whatever reason."""
        self._last = known

    def write(self, outcome: str, error: BaseException | None = None) -> None:
        with suppress(Exception):  # A failed device may no longer answer.
            self.add(**self._last())
        failure = None
        if error is not None:
            failure = Failure(
                at=time.time(),
                phase=self.phase,
                type=type(error).__name__,
                message=_printable(str(error)),
                traceback=_printable("".join(traceback.format_exception(error))),
            )
        record = RankRecord(
            schema_version=SCHEMA_VERSION,
            launch_id=self._job.launch_id,
            rank=self._rank,
            world_size=self._job.cell.world_size,
            outcome=outcome,  # type: ignore[arg-type]
            failure=failure,
            **self._values,
        )
        write_json(record_path(Path(self._job.record_folder), self._rank), record)


def _printable(text: str) -> str:
    """Return ``text`` as valid UTF-8, lone surrogates escaped, without the environment's secrets."""
    return masked(text).encode("utf-8", "backslashreplace").decode()
