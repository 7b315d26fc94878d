"""The command line: declared, read and checked. Whatever is wrong is said before any launch."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from zerogate.protocol.cell import data_name
from zerogate.verdicts.baselines import MINIMUM_LAUNCHES

if TYPE_CHECKING:
    from filelock import FileLock

    from zerogate.config.options import Options
    from zerogate.plugin.selection import Selection

LONGEST_SECONDS = 1e6

MINIMUM_PAIRS = 2
"""Of launches that are compared in turn."""

NEEDED_BYTES = 32 * 2**20
"""On the disk of the report folder: the cpu matrix at three launches a cell leaves 20 MB."""

LAUNCHERS = ("forkserver", "torchrun", "accelerate")


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("zerogate", "zerogate, regression suite for sharded training")

    def add(name: str, text: str, **settings: object) -> None:
        group.addoption(name, dest=f"zerogate_{name[2:].replace('-', '_')}", help=text, **settings)

    add("--strategy", "Only these strategies (comma-separated; default: all of configs/)",
        metavar="NAMES", action="append")  # fmt: skip
    add("--workload", "Only these workloads (comma-separated; default: all of workloads/)",
        metavar="NAMES", action="append")  # fmt: skip
    add("--world-size", "Numbers of ranks (comma-separated; default: 2)",
        metavar="NUMBERS", default="2")  # fmt: skip
    add("--device-memory", "Memory of each rank's device, like 24GiB: the budget of the largest batch "
        "(default: 24GiB on the cpu tier, where a scale model gets its share of it; the whole card "
        "on the gpu tier)", metavar="SIZE")  # fmt: skip
    add("--share-device", "Where there are fewer CUDA devices than ranks, ranks share them: memory, "
        "numbers and batch sizes are judged, time is not",
        action="store_true", default=False)  # fmt: skip
    add("--launcher", "What starts ranks: forkserver, torchrun or accelerate (default: forkserver)",
        metavar="NAME", default="forkserver")  # fmt: skip
    add("--with", "Lay packages over the environment, for ranks alone: what pip installs, a wheel or a "
        "checkout (repeatable)", metavar="REQUIREMENT", action="append", default=[])  # fmt: skip
    add("--against", "Hold cells to the same cells with these packages, measured in turn in this "
        "session, and to no baseline (repeatable)",
        metavar="REQUIREMENT", action="append", default=[])  # fmt: skip
    add("--repeats", "Training launches per cell; the median is judged (default: 1; 3 when "
        "recording)", metavar="N", type=int)  # fmt: skip
    add("--data-dir", "Folder with the real data sets, each in its own: mrpc, mudoconv, wikitext2 "
        "(default: generated data)", metavar="DIR")  # fmt: skip
    add("--baseline-dir", "Baselines to hold to (default: baselines/cpu-gloo on the cpu tier, "
        "baselines/<hardware> on the gpu tier; with --data-dir these names end in -real-data)",
        metavar="DIR")  # fmt: skip
    add("--update-baselines", "Record what was measured as the new baselines; needs --reason",
        action="store_true", default=False)  # fmt: skip
    add("--reason", "Why the baselines change; stored with them", metavar="TEXT")
    add("--missing-baseline", "What a metric without a baseline does: fail or skip "
        "(default: fail)", metavar="WHAT", default="fail")  # fmt: skip
    add("--resume", "Go on with the interrupted run in the report folder: what it measured is not "
        "measured again", action="store_true", default=False)  # fmt: skip
    add("--report-dir", "Where results.json, records and logs go (default: zerogate-report)",
        metavar="DIR")  # fmt: skip
    parser.addini(
        "zerogate_deadline_seconds",
        "Seconds after which a launch is ended (default: 300 on the cpu tier, 21600 on the gpu tier)",
        default="",
    )


def is_project(root: Path) -> bool:
    """Whether ``root`` holds strategies and workloads; elsewhere the plugin keeps quiet."""
    return (root / "configs").is_dir() and (root / "workloads").is_dir()


def refuse_lost_root(config: pytest.Config) -> None:
    """Raise UsageError when pytest took the value of one of our options for where the tests are.

    It looks for the root folder before it knows any plugin's options.
    """
    here = config.invocation_params.dir
    for name in ("report-dir", "data-dir", "baseline-dir", "with", "against"):
        asked = config.getoption(f"zerogate_{name.replace('-', '_')}") or []
        words = [asked] if isinstance(asked, str) else asked
        given = next((one for one in words if _below(here, one).is_dir()), None)
        # The root is lost where pytest found one of its own in that folder.
        if given and is_project(here) and config.rootpath != here:
            raise pytest.UsageError(
                f"--{name}: pytest looks for tests in {given}; write it in one word: "
                f"--{name}={given}"
            )


def refuse_workers(config: pytest.Config) -> None:
    """Raise UsageError when pytest-xdist would measure cells beside each other.

    A project's other tests may have their workers: only runs over ``testpaths`` are refused.
    """
    specs = getattr(config.option, "tx", None) or []
    workers = sum(int(spec.split("*")[0]) if "*" in spec else 1 for spec in specs)
    suite = [config.rootpath / path for path in config.getini("testpaths")]
    given = [(config.invocation_params.dir / arg.split("::")[0]).resolve() for arg in config.args]
    measures = not suite or any(
        path.is_relative_to(folder) or folder.is_relative_to(path)
        for path in given
        for folder in suite
    )
    if workers > 1 and measures and not hasattr(config, "workerinput"):
        raise pytest.UsageError(
            f"-n: {workers} workers would measure beside each other and disturb each other's "
            "memory and time; run without -n, or with -n0"
        )


def read_options(config: pytest.Config, selection: Selection) -> Options:
    """What a session needs to know. Raises UsageError; makes the report folder."""
    from zerogate.config.options import (
        Options,  # Only where cells are run: collecting is to be quick.
    )

    root = config.rootpath
    here = config.invocation_params.dir
    launcher = config.getoption("zerogate_launcher")
    _expect_one_of("--launcher", launcher, LAUNCHERS)
    _expect_one_of(
        "--missing-baseline", config.getoption("zerogate_missing_baseline"), ("fail", "skip")
    )
    report = config.getoption("zerogate_report_dir")
    return Options(
        root=root,
        baseline_folder=_baseline_folder(config, here),
        report_folder=_writable(
            "--report-dir", _below(here, report) if report else root / "zerogate-report"
        ),
        launcher=launcher,
        repeats=_repeats(config),
        data_folder=_data_folder(config, selection),
        device_memory_bytes=_device_memory(config.getoption("zerogate_device_memory")),
        deadline_seconds=_deadline(config),
        packages=_packages(config, "with"),
        against=_packages(config, "against"),
        share_device=config.getoption("zerogate_share_device"),
        resume=config.getoption("zerogate_resume"),
    )


def _packages(config: pytest.Config, option: str) -> tuple[str, ...]:
    asked: list[str] = config.getoption(f"zerogate_{option}")
    if asked and config.getoption("zerogate_update_baselines"):
        raise pytest.UsageError(
            f"--{option}: not with --update-baselines; baselines are of the environment "
            "itself: install the packages there to record them"
        )
    if asked and option == "against" and config.getoption("zerogate_resume"):
        raise pytest.UsageError(
            "--against: not with --resume; launches are compared that were made in turn; start anew"
        )
    return tuple(asked)


def _device_memory(text: str | None) -> int | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B)", text.strip(), re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise pytest.UsageError(
            f"--device-memory: {text!r} is not a size; expected a number above 0 with a unit, like "
            "24GiB, 80GB or 512MiB"
        )
    unit = match[2].upper()
    power = 1 + "KMGT".index(unit[0])
    size: int = round(float(match[1]) * (1024 if "I" in unit else 1000) ** power)
    return size


def _below(here: Path, given: str) -> Path:
    """What the user typed, relative to where the user stands."""
    try:
        path = Path(given).expanduser()
    except RuntimeError:  # ~nobody
        path = Path(given)
    return (here / path).resolve()


def _expect_one_of(option: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise pytest.UsageError(f"{option}: {value!r} is unknown; choose from {', '.join(choices)}")


def _repeats(config: pytest.Config) -> int:
    recording = config.getoption("zerogate_update_baselines")
    reason = config.getoption("zerogate_reason")
    repeats: int | None = config.getoption("zerogate_repeats")
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
    elif config.getoption("zerogate_against"):
        least, why = MINIMUM_PAIRS, "launches are compared in pairs, A B B A"
    if repeats is not None and repeats < least:
        raise pytest.UsageError(f"--repeats: {repeats} is too few; expected {least} or more: {why}")
    return repeats if repeats is not None else least


def _baseline_folder(config: pytest.Config, here: Path) -> Path | None:
    """The folder given, or None for the tier's own; written to before anything is measured."""
    given = config.getoption("zerogate_baseline_dir")
    folder = _below(here, given) if given else None
    if config.getoption("zerogate_update_baselines"):
        _writable("--baseline-dir", folder or config.rootpath / "baselines")
    elif folder is not None and not folder.is_dir():
        raise pytest.UsageError(
            f"--baseline-dir: {folder} is no folder; expected one with a file per workload, or "
            "--update-baselines to make it"
        )
    return folder


def _writable(option: str, folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise pytest.UsageError(
            f"{option}: cannot write to {folder}: {os.strerror(error.errno or 0)}; "
            "choose a folder that can be written"
        ) from None
    if (free := shutil.disk_usage(folder).free) < NEEDED_BYTES:
        raise pytest.UsageError(
            f"{option}: {free} bytes are free in {folder}; records and logs need some "
            f"{NEEDED_BYTES}; free some, or choose another folder"
        )
    return folder


def lock_report(folder: Path) -> FileLock:
    """Keep other sessions out of ``folder``; held until this process ends. Raises UsageError."""
    from zerogate.launch.locks import lock_folder

    if (lock := lock_folder(folder)) is None:
        raise pytest.UsageError(
            f"--report-dir: another session is writing to {folder}; wait for it, or choose another "
            "folder"
        )
    return lock


def _data_folder(config: pytest.Config, selection: Selection) -> Path | None:
    given = config.getoption("zerogate_data_dir")
    if given is None:
        return None
    folder = _below(config.invocation_params.dir, given)
    for workload in selection.workloads:
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
