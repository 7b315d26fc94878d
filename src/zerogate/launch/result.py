"""The result of a launch: the records of its ranks, or the error that explains the failure."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
from pathlib import Path

from zerogate.config.text import last_lines
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
from zerogate.launch.launcher import COMMAND_LAUNCHERS, LaunchResult
from zerogate.launch.record_file import read_record
from zerogate.launch.watchdog import read_heartbeat
from zerogate.protocol.job import Job
from zerogate.protocol.record import RankRecord, record_path
from zerogate.protocol.redact import masked

# Messages of gloo, NCCL and torch's store about a peer that is gone.
LOST_PEER = re.compile(
    r"connection (was )?(likely )?(closed|reset|refused)|closed by peer|broken pipe|"
    r"remote process exited|failed to (recv|send), (got|sent) 0 bytes",
    re.IGNORECASE,
)

# Messages of gloo, NCCL and torch's store about a peer that is alive and does not arrive.
TIMED_OUT = re.compile(
    r"timed out waiting|wait timeout after|watchdog caught collective operation timeout",
    re.IGNORECASE,
)

# Messages of torch's CPU allocator, and of DeepSpeed about its pinned buffers for the disk.
HOST_OOM = re.compile(r"DefaultCPUAllocator: can't allocate memory|mlock failed to allocate")

FULL_BYTES = 2**20
"""Free space below which a disk counts as full: a record takes some 10 kB, a log more."""


def collect_records(
    job: Job, folder: Path, result: LaunchResult, command: str
) -> tuple[RankRecord, ...]:
    """Return the records of all ranks, by rank. Raises a LaunchFailedError unless every rank is ok.

    ``command`` reproduces the launch; the error quotes it.
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
            elif record.rank != rank:
                unreadable[rank] = f"{path}: a record of rank {record.rank}"
            else:
                records[rank] = record
    failure = _killed_launcher(job, result, records) or _failure(job, result, records, unreadable)
    if failure is not None:
        failure.command = command
        failure.log = failure.log or str(result.log)
        raise failure
    return tuple(records[rank] for rank in sorted(records))


def _killed_launcher(
    job: Job, result: LaunchResult, records: dict[int, RankRecord]
) -> LaunchFailedError | None:
    """Return the error of a launcher that a signal killed; its ranks are lost, but not at fault."""
    done = [record for record in records.values() if record.outcome == "ok"]
    for name in COMMAND_LAUNCHERS:
        if (code := result.exit_codes.get(name, 0)) < 0 and len(done) < job.cell.world_size:
            how = f"{name}: {ended_how(code)}; its ranks were ended"
            return LauncherFailedError(f"{job.cell.id}: {how}")
    return None


def _failure(
    job: Job, result: LaunchResult, records: dict[int, RankRecord], unreadable: dict[int, str]
) -> LaunchFailedError | None:
    cell = job.cell.id
    missing = sorted(set(range(job.cell.world_size)) - set(records))
    failed = [(r.failure.at, r) for r in records.values() if r.failure is not None]
    # If a rank wrote no record, peers that only lost their connection to it did not fail first.
    bereaved = missing and all(_lost_its_peer(record) for _, record in failed)
    if failed and not bereaved:
        _, first = min(failed, key=lambda pair: pair[0])
        found = _of_record(cell, first, result.log)
        found.record = first
        return found
    if result.overdue:
        who = (
            f"{_ranks(missing)} without a record"
            if missing
            else "every rank has written its record"
        )
        return DeadlineExceededError(
            f"{cell}: still running after {result.seconds:.0f} s, {who} ({result.overdue}); the launch "
            "was ended",
            detail=result.stacks or _log_tail(result.log, missing),
        )
    if unreadable:
        rank, message = min(unreadable.items())
        return RankCrashedError(f"{cell}: rank {rank}: {message}", log=_log(result.log, rank))
    if missing:
        return _without_record(job, result, missing)
    if result.failed:
        codes = ", ".join(f"{n}: {ended_how(c)}" for n, c in result.exit_codes.items() if c)
        return RankCrashedError(
            f"{cell}: every rank finished, but not cleanly ({codes})",
            detail=_log_tail(result.log, [0]),
        )
    return None


def _without_record(job: Job, result: LaunchResult, missing: list[int]) -> LaunchFailedError:
    """Return the error that explains why the ranks ``missing`` wrote no record."""
    cell = job.cell.id
    codes = ", ".join(f"{name}: {ended_how(code)}" for name, code in result.exit_codes.items())
    detail, log = _log_tail(result.log, missing), _log(result.log, missing[0])
    folder = Path(job.record_folder)
    # torchrun does not report a rank's signal.
    killed = -signal.SIGKILL in result.exit_codes.values() or set(result.exit_codes) & set(
        COMMAND_LAUNCHERS
    )
    if result.oom_kills and killed:
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
        result.exit_codes.get(name) for name in COMMAND_LAUNCHERS
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
    """Return whether the rank failed only because another one is gone."""
    return record.failure is not None and bool(LOST_PEER.search(record.failure.message))


def _ranks(ranks: list[int]) -> str:
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))


def _log(log: Path, rank: int) -> str:
    """Return the log of a rank: forked ranks have one each, a command has one for all."""
    return str(log / f"rank{rank}.log" if log.is_dir() else log)


def _log_tail(log: Path, ranks: list[int], lines: int = 15) -> str:
    return masked(last_lines(Path(_log(log, ranks[0] if ranks else 0)), lines))
