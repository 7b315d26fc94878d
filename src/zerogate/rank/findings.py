"""A rank's record in the making."""

from __future__ import annotations

import time
import traceback
from pathlib import Path
from typing import Any

from zerogate.record import SCHEMA_VERSION, Failure, Job, RankRecord, record_path, write_json


class Findings:
    """The record in the making: what is known so far is written even when training fails."""

    def __init__(self, job: Job, rank: int) -> None:
        self.phase = "set-up"
        self._job = job
        self._rank = rank
        self._values: dict[str, Any] = {}

    def add(self, **values: Any) -> None:
        self._values.update(values)

    def write(self, outcome: str, error: BaseException | None = None) -> None:
        failure = None
        if error is not None:
            failure = Failure(
                at=time.time(),
                phase=self.phase,
                type=type(error).__name__,
                message=_encodable(str(error)),
                traceback=_encodable("".join(traceback.format_exception(error))),
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


def _encodable(text: str) -> str:
    """``text`` as UTF-8 can have it; lone surrogates become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
