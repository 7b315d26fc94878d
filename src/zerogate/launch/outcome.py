"""From how a launch ended and what its ranks wrote to records, or to the error that it was."""

from __future__ import annotations

import functools
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from zerogate.launch.errors import (
    ConfigurationWrongError,
    DeadlineExceededError,
    LaunchFailedError,
    OutOfMemoryError,
    RankCrashedError,
)
from zerogate.launch.launcher import Ended
from zerogate.record import Job, RankRecord, record_path

if TYPE_CHECKING:
    from pydantic import TypeAdapter


# gloo, NCCL and torch's store on a peer that is gone.
LOST_PEER = re.compile(
    r"connection (was )?(closed|reset|refused)|closed by peer|broken pipe|remote process exited",
    re.IGNORECASE,
)


@functools.cache
def _adapter() -> TypeAdapter[RankRecord]:
    # Only where records are read: importing pydantic would slow every collection down.
    from pydantic import TypeAdapter

    return TypeAdapter(RankRecord)


def read_record(path: Path) -> RankRecord:
    """One rank's record. Raises ValueError naming the file and the first key that is wrong."""
    from pydantic import ValidationError

    try:
        return _adapter().validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise ValueError(f"{path}: {where}: {first['msg']}; expected a rank record") from None


def collect(job: Job, folder: Path, ended: Ended, command: str) -> tuple[RankRecord, ...]:
    """The records of all ranks, by rank. Raises a LaunchFailedError unless every rank is ok.

    ``command`` is what a person types to see it again.
    """
    records: dict[int, RankRecord] = {}
    unreadable: dict[int, str] = {}
    for rank in range(job.cell.world_size):
        path = record_path(folder, rank)
        if path.exists():
            try:
                record = read_record(path)
            except ValueError as error:
                unreadable[rank] = str(error)
                continue
            if record.launch_id != job.launch_id:
                unreadable[rank] = f"{path}: a record of another launch ({record.launch_id})"
            else:
                records[rank] = record
    failure = _failure(job, ended, records, unreadable)
    if failure is not None:
        failure.command = command
        failure.log = failure.log or str(ended.log)
        raise failure
    return tuple(records[rank] for rank in sorted(records))


def _failure(
    job: Job, ended: Ended, records: dict[int, RankRecord], unreadable: dict[int, str]
) -> LaunchFailedError | None:
    cell = job.cell.id
    missing = sorted(set(range(job.cell.world_size)) - set(records))
    failed = [(r.failure.at, r) for r in records.values() if r.failure is not None]
    # A rank that could write no record took its peers' connections with it.
    bereaved = missing and all(_lost_its_peer(record) for _, record in failed)
    if failed and not bereaved:
        _, first = min(failed, key=lambda pair: pair[0])
        found = _of_record(cell, first, ended.log)
        found.record = first
        return found
    if ended.deadline_passed:
        who = (
            f"{_ranks(missing)} without a record"
            if missing
            else "every rank has written its record"
        )
        return DeadlineExceededError(
            f"{cell}: still running after {ended.seconds:.0f} s, {who}; the launch was ended",
            detail=_log_tail(ended.log, missing),
        )
    if unreadable:
        rank, message = min(unreadable.items())
        return RankCrashedError(f"{cell}: rank {rank}: {message}", log=_log(ended.log, rank))
    if missing:
        codes = ", ".join(f"{name}: {_exit(code)}" for name, code in ended.exit_codes.items())
        return RankCrashedError(
            f"{cell}: {_ranks(missing)} left without a record ({codes})",
            detail=_log_tail(ended.log, missing),
            log=_log(ended.log, missing[0]),
        )
    if ended.failed:
        codes = ", ".join(f"{n}: {_exit(c)}" for n, c in ended.exit_codes.items() if c)
        return RankCrashedError(
            f"{cell}: every rank finished, but not cleanly ({codes})",
            detail=_log_tail(ended.log, [0]),
        )
    return None


def _of_record(cell: str, record: RankRecord, log: Path) -> LaunchFailedError:
    failure = record.failure
    assert failure is not None
    first_line = (failure.message.splitlines() or [""])[0]
    summary = f"{cell}: rank {record.rank} in {failure.phase}: {failure.type}: {first_line}"
    detail = failure.traceback
    path = _log(log, record.rank)
    if record.outcome == "oom":
        return OutOfMemoryError(summary, detail=detail, log=path)
    if failure.type in ("NotAppliedError", "NotPossibleError"):
        return ConfigurationWrongError(f"{cell}: rank {record.rank}: {first_line}", log=path)
    return RankCrashedError(summary, detail=detail, log=path)


def _lost_its_peer(record: RankRecord) -> bool:
    """Whether what the rank reports is that another one is gone."""
    return record.failure is not None and bool(LOST_PEER.search(record.failure.message))


def _ranks(ranks: list[int]) -> str:
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))


def _exit(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    known = {member.value: member.name for member in signal.Signals}
    return f"killed by {known.get(-code, f'signal {-code}')}"


def _log(log: Path, rank: int) -> str:
    """Forked ranks have a log each, in the launch's folder; a command has one for all."""
    return str(log / f"rank{rank}.log" if log.is_dir() else log)


def _log_tail(log: Path, ranks: list[int], lines: int = 15) -> str:
    path = Path(_log(log, ranks[0] if ranks else 0))
    if not path.exists():
        return ""
    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(max(0, size - 16384))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
