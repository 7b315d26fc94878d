"""``zerogate sweep`` and ``zerogate bisect``."""

from __future__ import annotations

import argparse
import difflib
import shutil
import sys
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from zerogate.asked import Options
from zerogate.atomic import write_json, write_text
from zerogate.cell import Cell, parse_cell
from zerogate.config_file import ConfigError
from zerogate.devices.cards import cuda_devices
from zerogate.metric import METRICS, metric_named
from zerogate.releases.bisection import Bisection, State
from zerogate.releases.index import releases, version
from zerogate.releases.sweep import Row, as_json, as_markdown, sweep
from zerogate.releases.trial import Trial, changes, try_requirement
from zerogate.runner import Step

HELD: list[FileLock] = []
"""Of report folders; until the process ends."""

CULPRIT_AGAIN = "again"
"""Where the culprit and its parent are measured once more, from nothing."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare both commands."""
    one = commands.add_parser(
        "sweep",
        help="every release of a package through the same cells",
        description="Every release of a package through the same cells: what each changed against "
        "the one before it. One overlay and one launch a cell for each release; results are in "
        "zerogate-report/sweep-PACKAGE, and a second call goes on there. Exit code 0, 4 for a "
        "mistake.",
    )
    one.add_argument("package", help="its name, without a version")
    one.add_argument("--from", dest="first", metavar="VERSION", required=True, help="included")
    one.add_argument("--to", dest="last", metavar="VERSION", help="included (default: the newest)")
    one.add_argument("--cells", metavar="IDS", required=True, help=CELLS)
    one.set_defaults(run=_sweep)
    two = commands.add_parser(
        "bisect",
        help="the first release that changed a metric of a cell",
        description="The first release, from the good end, in which a metric of a cell is not what "
        "it is there. Results are in zerogate-report/bisect-…, and a second call goes on there. Exit "
        "code 0 where it was found, 4 where not, or for a mistake.",
    )
    two.add_argument("package", help="its name, without a version")
    two.add_argument("--good", metavar="VERSION", required=True)
    two.add_argument("--bad", metavar="VERSION", required=True, help="may be the older one")
    two.add_argument("--cell", metavar="ID", required=True)
    two.add_argument("--metric", metavar="NAME", required=True, help="as in results.json")
    two.set_defaults(run=_bisect)


CELLS = "comma-separated, like gpt2xl_wikitext2-zero2-w2"


def _sweep(arguments: argparse.Namespace) -> int:
    package = arguments.package
    cells = _cells(arguments.cells)
    wanted = releases(package, first=arguments.first, last=arguments.last)
    options = _options(f"sweep-{package}")
    rows: list[Row] = []
    ids = [cell.id for cell in cells]
    for row in sweep(package, wanted, lambda text: try_requirement(text, cells, options, _show)):
        rows.append(row)
        print(f"{package} {row.release}: {row.outcome}", flush=True)
        write_json(options.report_folder / "sweep.json", as_json(package, ids, rows))
        write_text(options.report_folder / "sweep.md", as_markdown(package, ids, rows))
    print(f"everything is in {options.report_folder}")
    return 0


def _bisect(arguments: argparse.Namespace) -> int:
    package, metric = arguments.package, arguments.metric
    cells = _cells(arguments.cell, "--cell")
    if len(cells) > 1:
        raise ConfigError("--cell: one is bisected at a time; name one")
    (cell,) = cells
    _known_metric(metric)
    found = Bisection(_between(package, arguments.good, arguments.bad))
    options = _options(f"bisect-{package}-{cell.id}-{metric}")
    reference: list[Trial] = []

    def state(release: str, folder: Options) -> tuple[State, str]:
        trial = try_requirement(f"{package}=={release}", [cell], folder, _show)
        if metric not in trial.values.get(cell.id, {}):
            why = {**trial.failures, **trial.absent}.get(cell.id, f"{metric} is not measured there")
            return "skipped", trial.invalid or why
        if not reference:
            reference.append(trial)  # The good end: it is asked for first.
        changed = [one for one in changes(reference[0], trial) if one.metric == metric]
        if not changed:
            return "good", f"{metric} as in {arguments.good}"
        (one,) = changed
        step = f" at step {one.step}" if one.step is not None else ""
        return "bad", f"{metric}{step} is {one.now}, in {arguments.good} {one.was}"

    while (release := found.ask()) is not None:
        answer, why = state(release, options)
        found.tell(release, answer)
        print(f"{package} {release}: {answer}: {why}", flush=True)
    if found.problem:
        raise ConfigError(f"bisect: {found.problem}; choose other ends, or another metric")
    shutil.rmtree(options.report_folder / CULPRIT_AGAIN, ignore_errors=True)
    again = _options(f"bisect-{package}-{cell.id}-{metric}/{CULPRIT_AGAIN}")
    for release, expected in ((found.last_good, "good"), (found.first_bad, "bad")):
        answer, why = state(release, again)
        print(f"{package} {release}, measured again: {answer}: {why}", flush=True)
        if answer != expected:
            raise ConfigError(
                f"bisect: {release} was {expected} and now is {answer}; the metric is not the same "
                "from launch to launch; choose another"
            )
    print(_conclusion(package, arguments, found))
    return 0


def _conclusion(package: str, arguments: argparse.Namespace, found: Bisection) -> str:
    backwards = version(arguments.good, "--good") > version(arguments.bad, "--bad")
    text = (
        f"{package} {found.last_good} mended it; {found.first_bad} is the last that has it"
        if backwards
        else f"{package} {found.first_bad} is the first bad one; {found.last_good} is good"
    )
    if found.untold:
        text += f"; it may be one of {', '.join(found.untold)}, which cannot run here"
    return text


def _between(package: str, good: str, bad: str) -> list[str]:
    """Releases from the good end to the bad one, in that order."""
    backwards = version(good, "--good") > version(bad, "--bad")
    first, last = (bad, good) if backwards else (good, bad)
    found = releases(package, first=first, last=last)
    for end in (good, bad):
        if end not in found:
            raise ConfigError(
                f"{end}: no release of {package}; between {good} and {bad} there are "
                f"{', '.join(found)}"
            )
    if good == bad:
        raise ConfigError(f"--bad: {bad} is --good too; expected two releases")
    return found[::-1] if backwards else found


def _cells(text: str, option: str = "--cells") -> list[Cell]:
    root = Path.cwd()
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            cell = parse_cell(part)
        except ValueError as error:
            raise ConfigError(f"{option}: {error}") from None
        for file in (f"workloads/{cell.workload}.py", f"configs/{cell.strategy}.yaml"):
            if not (root / file).is_file():
                raise ConfigError(
                    f"{option}: {part}: no {file} here; choose another, or run this in the project's "
                    "folder"
                )
        if cell.tier == "gpu" and len(cuda_devices()) < cell.world_size:
            raise ConfigError(
                f"{option}: {part}: needs {cell.world_size} CUDA devices, found {len(cuda_devices())}"
            )
        found.append(cell)
    if not found:
        raise ConfigError(f"{option}: none given; expected some like gpt2xl_wikitext2-zero2-w2")
    return found


def _known_metric(name: str) -> None:
    try:
        metric = metric_named(name)
    except KeyError:
        close = difflib.get_close_matches(name, METRICS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"--metric: {name!r} is unknown; expected a name like loss or live_bytes{hint}"
        ) from None
    if metric.budget is not None:
        raise ConfigError(
            f"--metric: {name} is found by a search for the largest batch, which is not made here; "
            "expected one that training measures"
        )
    if metric.scope != "portable":
        raise ConfigError(
            f"--metric: {name} depends on the hardware of the day; expected one of bytes, counts, "
            "losses or quality"
        )


def _options(name: str) -> Options:
    folder = Path.cwd() / "zerogate-report" / name
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"{folder}: another run is writing there; wait for it") from None
    HELD.append(lock)
    return Options(
        root=Path.cwd(),
        baseline_folder=None,
        report_folder=folder,
        cache_folder=Path(platformdirs.user_cache_dir("zerogate")),
        launcher="forkserver",
        repeats=1,
        data_folder=None,
        deadline_seconds=None,
    )


def _show(step: Step) -> None:
    cell = f"{step.cell.id}: " if step.cell else ""
    print(f"  {cell}{step.text}", file=sys.stderr, flush=True)
