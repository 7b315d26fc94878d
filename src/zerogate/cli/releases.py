"""``zerogate sweep`` and ``zerogate bisect``."""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from zerogate.config.options import Options
from zerogate.config.strategy_file import ConfigError
from zerogate.devices.cards import cuda_devices
from zerogate.environment.requirements import check_requirement
from zerogate.launch.locks import lock_folder
from zerogate.metrics.table import METRICS, metric_named
from zerogate.protocol.atomic_write import write_json, write_text
from zerogate.protocol.cell import Cell, parse_cell
from zerogate.releases.bisect import Bisect
from zerogate.releases.evaluate import evaluate_afresh, evaluate_packages
from zerogate.releases.heatmap import draw
from zerogate.releases.issue_report import report
from zerogate.releases.package_index import between, releases
from zerogate.releases.package_sets import one_package, several_packages
from zerogate.releases.sweep import Row, as_json, as_markdown, sweep
from zerogate.session.runner import Step

CULPRIT_AGAIN = "again"
"""Where the culprit and its parent are measured once more, from nothing."""


WITH: dict[str, Any] = {
    "dest": "packages",
    "metavar": "PACKAGE",
    "action": "append",
    "default": [],
    "help": "what is laid over besides, the same for every release (repeatable)",
}
CELLS = "comma-separated, like gpt2xl_wikitext2-zero2-w2"


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
    one.add_argument("--with", **WITH)
    one.set_defaults(run=_sweep)
    two = commands.add_parser(
        "bisect",
        help="the first release that changed a metric of a cell",
        description="The first release, from the good end, in which a metric of a cell is not what "
        "it is there. Results are in zerogate-report/bisect-…, and a second call goes on there. Exit "
        "code 0 where it was found, 4 where not, or for a mistake.",
    )
    two.add_argument("package", nargs="?", help="its name; none where several changed together")
    pins = "a release of PACKAGE, or NAME==VERSION or a file of such lines (repeatable)"
    two.add_argument("--good", metavar="WHAT", required=True, action="append", help=pins)
    two.add_argument(
        "--bad", metavar="WHAT", required=True, action="append", help="the same; may be the older"
    )
    two.add_argument("--with", **WITH)
    two.add_argument("--cell", metavar="ID", required=True)
    two.add_argument("--metric", metavar="NAME", required=True, help="as in results.json")
    two.set_defaults(run=_bisect)


def _sweep(arguments: argparse.Namespace) -> int:
    package = arguments.package
    cells = _cells(arguments.cells)
    _check(arguments.packages, [package])
    wanted = releases(package, first=arguments.first, last=arguments.last)
    rows: list[Row] = []
    ids = [cell.id for cell in cells]
    with _reporting(f"sweep-{package}") as options:
        folder = options.report_folder
        for row in sweep(
            wanted,
            lambda release: evaluate_packages(
                (*arguments.packages, f"{package}=={release}"), cells, options, _show
            ),
        ):
            rows.append(row)
            _say(f"{package} {row.release}: {row.outcome}")
            write_json(folder / "sweep.json", as_json(package, ids, rows))
            write_text(folder / "sweep.md", as_markdown(package, ids, rows))
        if why := draw(package, ids, rows, folder / "sweep.png"):
            _say(why)
    _say(f"everything is in {folder}")
    return 0


def _bisect(arguments: argparse.Namespace) -> int:
    package, metric, both = arguments.package, arguments.metric, arguments.packages
    cells = _cells(arguments.cell, "--cell")
    if len(cells) > 1:
        raise ConfigError("--cell: one is bisected at a time; name one")
    _known_metric(metric)
    if package:
        package_sets = one_package(package, arguments.good, arguments.bad, both)
    else:
        package_sets = several_packages(arguments.good, arguments.bad, both)
    _check(both, list(package_sets.good))
    # Asked for before anything is measured: a mistake in one would cost all of it.
    known = {
        name: between(name, package_sets.good[name], package_sets.bad[name])
        for name in package_sets.good
    }
    ends = f"{arguments.good[0]}-{arguments.bad[0]}" if package else "packages"
    name = "-".join(filter(None, ("bisect", package, ends, cells[0].id, metric)))
    with _reporting(name) as options, _reporting(f"{name}/{CULPRIT_AGAIN}") as again:
        search = Bisect(
            package_sets,
            cells[0],
            metric,
            evaluate=lambda packages: evaluate_packages(packages, cells, options, _show),
            evaluate_afresh=lambda packages: evaluate_afresh(packages, cells, again, _show),
            releases=known,
            say=_say,
        )
        for culprit in search.culprits():
            report(search, culprit, options, command=_typed(), show=_show, say=_say)
    return 0


def _typed() -> str:
    return shlex.join(["zerogate", *sys.argv[1:]])


def _check(packages: Sequence[str], tried: Sequence[str]) -> None:
    """Raises ConfigError for what cannot be laid over besides the packages that are ``tried``."""
    for text in packages:
        try:
            check_requirement(text)
        except ConfigError as error:
            raise ConfigError(f"--with: {error}") from None
        name = re.match(r"[\w.-]*", text)
        if name and canonicalize_name(name[0]) in map(canonicalize_name, tried):
            raise ConfigError(
                f"--with: {text}: releases of it are what is tried; expected other packages"
            )


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
        if cell not in found:
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


@contextmanager
def _reporting(name: str) -> Iterator[Options]:
    """A report folder of that name, kept from other runs meanwhile."""
    folder = Path.cwd() / "zerogate-report" / name
    folder.mkdir(parents=True, exist_ok=True)
    if (lock := lock_folder(folder)) is None:
        raise ConfigError(f"{folder}: another run is writing there; wait for it")
    with lock:
        yield Options(root=Path.cwd(), report_folder=folder)


def _say(text: str) -> None:
    print(text, flush=True)


def _show(step: Step) -> None:
    cell = f"{step.cell.id}: " if step.cell else ""
    print(f"  {cell}{step.text}", file=sys.stderr, flush=True)
