"""From how a launch ended and what its ranks wrote to records, or to the error that it was."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
from pathlib import Path

from zerogate.config.validation import from_json
from zerogate.launch.command import COMMANDS
from zerogate.launch.errors import (
    ConfigurationWrongError,
    DeadlineExceededError,
    DiskFailedError,
    HostOutOfMemoryError,
    LauncherFailedError,
    LaunchFailedError,
    OutOfMemoryError,
    RankCrashedError,
    ended_how,
)
from zerogate.launch.launcher import LaunchResult
from zerogate.launch.watchdog import read_heartbeat
from zerogate.protocol.record import Job, RankRecord, record_path
from zerogate.protocol.redact import masked

# gloo, NCCL and torch's store on a peer that is gone.
LOST_PEER = re.compile(
    r"connection (was )?(likely )?(closed|reset|refused)|closed by peer|broken pipe|"
    r"remote process exited|failed to (recv|send), (got|sent) 0 bytes",
    re.IGNORECASE,
)

# gloo, NCCL and torch's store on a peer that is there and does not come.
TIMED_OUT = re.compile(
    r"timed out waiting|wait timeout after|watchdog caught collective operation timeout",
    re.IGNORECASE,
)

# torch's and Python's words, and those of DeepSpeed's buffers for the disk.
HOST_OOM = re.compile(r"DefaultCPUAllocator: can't allocate memory|mlock failed to allocate")

FULL_BYTES = 2**20
"""A disk with less than this is full: a record takes some 10 kB, a log more."""


def read_record(path: Path) -> RankRecord:
    """One rank's record. Raises ValueError naming the file and the first key that is wrong."""
    try:
        return from_json(RankRecord, path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}; expected a rank record") from None


def collect_records(
    job: Job, folder: Path, ended: LaunchResult, command: str
) -> tuple[RankRecord, ...]:
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
    failure = _killed_launcher(job, ended, records) or _failure(job, ended, records, unreadable)
    if failure is not None:
        failure.command = command
        failure.log = failure.log or str(ended.log)
        raise failure
    return tuple(records[rank] for rank in sorted(records))


def _killed_launcher(
    job: Job, ended: LaunchResult, records: dict[int, RankRecord]
) -> LaunchFailedError | None:
    """Never a rank's fault: that, a launcher reports. Its ranks are lost with it."""
    done = [record for record in records.values() if record.outcome == "ok"]
    for name in COMMANDS:
        if (code := ended.exit_codes.get(name, 0)) < 0 and len(done) < job.cell.world_size:
            how = f"{name}: {ended_how(code)}; its ranks were ended"
            return LauncherFailedError(f"{job.cell.id}: {how}")
    return None


def _failure(
    job: Job, ended: LaunchResult, records: dict[int, RankRecord], unreadable: dict[int, str]
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
    if ended.overdue:
        who = (
            f"{_ranks(missing)} without a record"
            if missing
            else "every rank has written its record"
        )
        return DeadlineExceededError(
            f"{cell}: still running after {ended.seconds:.0f} s, {who} ({ended.overdue}); the launch "
            "was ended",
            detail=ended.stacks or _log_tail(ended.log, missing),
        )
    if unreadable:
        rank, message = min(unreadable.items())
        return RankCrashedError(f"{cell}: rank {rank}: {message}", log=_log(ended.log, rank))
    if missing:
        return _without_record(job, ended, missing)
    if ended.failed:
        codes = ", ".join(f"{n}: {ended_how(c)}" for n, c in ended.exit_codes.items() if c)
        return RankCrashedError(
            f"{cell}: every rank finished, but not cleanly ({codes})",
            detail=_log_tail(ended.log, [0]),
        )
    return None


def _without_record(job: Job, ended: LaunchResult, missing: list[int]) -> LaunchFailedError:
    """Why ranks brought back nothing at all."""
    cell = job.cell.id
    codes = ", ".join(f"{name}: {ended_how(code)}" for name, code in ended.exit_codes.items())
    detail, log = _log_tail(ended.log, missing), _log(ended.log, missing[0])
    folder = Path(job.record_folder)
    # torchrun does not tell a rank's signal.
    killed = -signal.SIGKILL in ended.exit_codes.values() or set(ended.exit_codes) & set(COMMANDS)
    if ended.oom_kills and killed:
        return HostOutOfMemoryError(
            f"{cell}: {_ranks(missing)} killed by the kernel: the host, or this container, is out "
            f"of memory ({codes}); give it more, or run fewer ranks",
            detail=detail,
            log=log,
        )
    if shutil.disk_usage(folder).free < FULL_BYTES:
        return DiskFailedError(
            f"{cell}: {folder}: no space left; {_ranks(missing)} could write no record ({codes}); "
            "free some, or choose another --report-dir",
            detail=detail,
            log=log,
        )
    if all(read_heartbeat(folder, rank) is None for rank in missing) and any(
        ended.exit_codes.get(name) for name in COMMANDS
    ):
        return LauncherFailedError(
            f"{cell}: no rank was started ({codes}); see the launcher's log", detail=detail, log=log
        )
    return RankCrashedError(
        f"{cell}: {_ranks(missing)} left without a record ({codes})", detail=detail, log=log
    )


def _of_record(cell: str, record: RankRecord, log: Path) -> LaunchFailedError:
    failure = record.failure
    assert failure is not None
    first_line = (failure.message.splitlines() or [""])[0]
    summary = f"{cell}: rank {record.rank} in {failure.phase}: {failure.type}: {first_line}"
    kind: type[LaunchFailedError] = RankCrashedError
    if failure.type in ("NotAppliedError", "NotPossibleError"):
        summary = f"{cell}: rank {record.rank}: {first_line}"
        return ConfigurationWrongError(summary, log=_log(log, record.rank))
    if record.outcome == "oom":
        kind = OutOfMemoryError
    elif TIMED_OUT.search(failure.message):
        kind = DeadlineExceededError
    elif failure.type == "MemoryError" or HOST_OOM.search(failure.message):
        kind = HostOutOfMemoryError
    elif failure.type == "OSError" and os.strerror(errno.ENOSPC) in failure.message:
        kind = DiskFailedError
    return kind(summary, detail=failure.traceback, log=_log(log, record.rank))


def _lost_its_peer(record: RankRecord) -> bool:
    """Whether what the rank reports is that another one is gone."""
    return record.failure is not None and bool(LOST_PEER.search(record.failure.message))


def _ranks(ranks: list[int]) -> str:
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))


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
        return masked("\n".join(file.read().decode(errors="replace").splitlines()[-lines:]))
