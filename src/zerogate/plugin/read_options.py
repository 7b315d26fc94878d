"""Options of a session, read once. Every mistake in them is reported before any launch."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zerogate.config.options import Options
from zerogate.config.project import Project
from zerogate.launch.launcher import LAUNCHERS
from zerogate.plugin.command_line import below, option
from zerogate.plugin.selection import read_strategies, read_workloads, read_world_sizes
from zerogate.protocol.cell import data_name

if TYPE_CHECKING:
    from filelock import FileLock

LONGEST_SECONDS = 1e6

MINIMUM_LAUNCHES = 3
"""Smallest number of launches of a cell from which a baseline gets its spread."""

MINIMUM_PAIRS = 2
"""Smallest number of launches of a cell in each of two environments that are compared."""

MOST_JOBS = 64

NEEDED_BYTES = 32 * 2**20
"""Free disk space that a folder needs: the cpu matrix at three launches a cell writes 20 MB."""


def read_options(config: pytest.Config, project: Project) -> Options:
    """Return the session's options. Raises UsageError. Writes nothing."""
    workloads = read_workloads(config, project)
    report = option(config, "report-dir")
    return Options(
        root=project.root,
        report_folder=below(config, str(report)) if report else project.report,
        workloads=workloads,
        strategies=read_strategies(config, project),
        world_sizes=read_world_sizes(config),
        tests=_named_tests(config),
        pyargs=bool(config.option.pyargs),
        baseline_folder=_baseline_folder(config),
        launcher=_one_of(config, "launcher", LAUNCHERS),
        repeats=_repeats(config),
        jobs=_jobs(config),
        data_folder=_data_folder(config, workloads),
        deadline_seconds=_deadline(config),
        device_memory_bytes=_device_memory(config),
        share_device=bool(option(config, "share-device")),
        packages=_packages(config, "with"),
        against=_packages(config, "against"),
        resume=bool(option(config, "resume")),
        update_baselines=bool(option(config, "update-baselines")),
        reason=str(option(config, "reason") or ""),
        require_cells=bool(option(config, "require-cells")),
        missing_baseline=_one_of(config, "missing-baseline", ("fail", "skip")),
    )


def _named_tests(config: pytest.Config) -> tuple[str, ...]:
    """Return what the command line names as tests; nothing where ``testpaths`` decide."""
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    return tuple(config.args) if named else ()


def prepare_folders(options: Options) -> FileLock:
    """Make the folders that the session writes to, and return a lock on the report folder.

    The lock keeps other sessions out until this process ends. Raises UsageError.
    """
    _make_writable("--report-dir", options.report_folder)
    if options.update_baselines:
        _make_writable("--baseline-dir", options.baseline_folder or options.project.baselines)
    from zerogate.launch.locks import lock_folder

    if (lock := lock_folder(options.report_folder)) is None:
        raise pytest.UsageError(
            f"--report-dir: another session is writing to {options.report_folder}; wait for it, or "
            "choose another folder"
        )
    return lock


def _packages(config: pytest.Config, name: str) -> tuple[str, ...]:
    given: Any = option(config, name)
    if given and option(config, "update-baselines"):
        raise pytest.UsageError(
            f"--{name}: not with --update-baselines; baselines are of the environment itself: "
            "install the packages there to record them"
        )
    if given and name == "against" and option(config, "resume"):
        raise pytest.UsageError(
            "--against: not with --resume; both environments are launched in turn; start anew"
        )
    return tuple(given)


def _device_memory(config: pytest.Config) -> int | None:
    text: Any = option(config, "device-memory")
    if text is None:
        return None
    from pydantic import ByteSize, TypeAdapter, ValidationError

    size = 0
    if re.search(
        r"\d\s*(?:[KMGT]i?)?B$", text.strip(), re.IGNORECASE
    ):  # pydantic accepts bits too.
        try:
            size = int(TypeAdapter(ByteSize).validate_python(text.strip()))
        except ValidationError:
            size = 0
    if size <= 0:
        raise pytest.UsageError(
            f"--device-memory: {text!r} is not a size; expected a number above 0 with a unit, like "
            "24GiB, 80GB or 512MiB"
        )
    return size


def _one_of(config: pytest.Config, name: str, choices: Sequence[str]) -> Any:
    value: Any = option(config, name)
    if value not in choices:
        raise pytest.UsageError(f"--{name}: {value!r} is unknown; choose from {', '.join(choices)}")
    return value


def _repeats(config: pytest.Config) -> int:
    recording = option(config, "update-baselines")
    reason: Any = option(config, "reason")
    repeats: Any = option(config, "repeats")
    if recording and not (reason or "").strip():
        raise pytest.UsageError(
            "--update-baselines: no --reason; baselines are reviewed, so say why they change: "
            '--reason "torch 2.13"'
        )
    if reason and not recording:
        raise pytest.UsageError("--reason: only means something with --update-baselines; add it")
    least, why = 1, "a cell is launched at least once"
    if recording:
        least, why = MINIMUM_LAUNCHES, "a baseline needs its spread"
    elif option(config, "against"):
        least, why = MINIMUM_PAIRS, "launches are compared in pairs, A B B A"
    if repeats is not None and repeats < least:
        raise pytest.UsageError(f"--repeats: {repeats} is too few; expected {least} or more: {why}")
    return int(repeats) if repeats is not None else least


def _jobs(config: pytest.Config) -> int:
    text = str(option(config, "jobs")).strip()
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MOST_JOBS):
        raise pytest.UsageError(
            f"--jobs: {text[:20]!r} is not a number of cells; expected a whole number from 1 to "
            f"{MOST_JOBS}"
        )
    if int(text) > 1 and option(config, "against"):
        raise pytest.UsageError(
            "--jobs: not with --against; both environments are launched in turn, on the same "
            "devices; leave out --jobs"
        )
    return int(text)


def _baseline_folder(config: pytest.Config) -> Path | None:
    """Return the folder that the user named; None for the tier's own. Raises UsageError."""
    given = option(config, "baseline-dir")
    folder = below(config, str(given)) if given else None
    missing = folder is not None and not folder.is_dir()
    if missing and not option(config, "update-baselines"):
        raise pytest.UsageError(
            f"--baseline-dir: {folder} is no folder; expected one with a file per workload, or "
            "--update-baselines to make it"
        )
    return folder


def _make_writable(name: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise pytest.UsageError(
            f"{name}: cannot write to {folder}: {os.strerror(error.errno or 0)}; "
            "choose a folder that can be written"
        ) from None
    if (free := shutil.disk_usage(folder).free) < NEEDED_BYTES:
        raise pytest.UsageError(
            f"{name}: {free} bytes are free in {folder}; records and logs need some "
            f"{NEEDED_BYTES}; free some, or choose another folder"
        )


def _data_folder(config: pytest.Config, workloads: Sequence[str]) -> Path | None:
    given = option(config, "data-dir")
    if given is None:
        return None
    folder = below(config, str(given))
    for workload in workloads:
        name = data_name(workload)
        if not (folder / name).is_dir():
            raise pytest.UsageError(
                f"--data-dir: {folder} has no folder {name!r} for {workload}; put the data set's "
                "own files there, or leave the workload out with --workload"
            )
    return folder


def _deadline(config: pytest.Config) -> float | None:
    text = config.getini("zerogate_deadline_seconds")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= LONGEST_SECONDS:
        raise pytest.UsageError(
            f"zerogate_deadline_seconds: {text!r} is not a time; expected seconds above 0, at most "
            f"{LONGEST_SECONDS:.0f}"
        )
    return seconds
