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
from zerogate.config.project import Project
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
from zerogate.session.progress import ProgressUpdate

CULPRIT_AGAIN = "again"
"""Folder in which the culprit and the last good release are measured again, with nothing reused."""


WITH: dict[str, Any] = {
    "dest": "packages",
    "metavar": "PACKAGE",
    "action": "append",
    "default": [],
    "help": "another package to lay over, the same for every release (repeatable)",
}
CELLS = "comma-separated, like gpt2xl_wikitext2-zero2-w2"


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both subcommands to the parser."""
    one = commands.add_parser(
        "sweep",
        help="run every release of a package through the same cells",
        description="Run every release of a package through the same cells, and report what each "
        "changed against the one before it. Each release takes one overlay, and one launch per "
        "cell. Results are in zerogate-report/sweep-PACKAGE; a second call goes on there. Exit "
        "code: 0, or 4 for a usage error.",
    )
    one.add_argument("package", help="its name, without a version")
    one.add_argument("--from", dest="first", metavar="VERSION", required=True, help="included")
    one.add_argument("--to", dest="last", metavar="VERSION", help="included (default: the newest)")
    one.add_argument("--cells", metavar="IDS", required=True, help=CELLS)
    one.add_argument("--with", **WITH)
    one.set_defaults(run=_sweep)
    two = commands.add_parser(
        "bisect",
        help="find the first release that changed a metric of a cell",
        description="Find the first release, from the good end, in which a metric of a cell "
        "differs from that end. Results are in zerogate-report/bisect-…; a second call goes on "
        "there. Exit code: 0 if it was found, 4 if not, or for a usage error.",
    )
    two.add_argument("package", nargs="?", help="its name; none if several changed together")
    pins = "a release of PACKAGE, or NAME==VERSION or a file of such lines (repeatable)"
    two.add_argument("--good", metavar="WHAT", required=True, action="append", help=pins)
    two.add_argument(
        "--bad",
        metavar="WHAT",
        required=True,
        action="append",
        help="the same; may be older",
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
                (*arguments.packages, f"{package}=={release}"), cells, options, _progress
            ),
        ):
            rows.append(row)
            _output(f"{package} {row.release}: {row.outcome}")
            write_json(folder / "sweep.json", as_json(package, ids, rows))
            write_text(folder / "sweep.md", as_markdown(package, ids, rows))
        if why := draw(package, ids, rows, folder / "sweep.png"):
            _output(why)
    _output(f"everything is in {folder}")
    return 0


def _bisect(arguments: argparse.Namespace) -> int:
    package, metric, both = arguments.package, arguments.metric, arguments.packages
    cells = _cells(arguments.cell, "--cell")
    if len(cells) > 1:
        raise ConfigError(f"--cell: {len(cells)} cells given; expected one")
    _known_metric(metric)
    if package:
        package_sets = one_package(package, arguments.good, arguments.bad, both)
    else:
        package_sets = several_packages(arguments.good, arguments.bad, both)
    _check(both, list(package_sets.good))
    # Read before anything is measured: a mistake found later would waste all of that.
    known = {
        name: between(name, package_sets.good[name], package_sets.bad[name])
        for name in package_sets.good
    }
    ends = f"{arguments.good[0]}-{arguments.bad[0]}" if package else "packages"
    name = "-".join(filter(None, ("bisect", package, ends, cells[0].id, metric)))
    with _reporting(name) as options, _reporting(f"{name}/{CULPRIT_AGAIN}") as again:
        bisect = Bisect(
            package_sets,
            cells[0],
            metric,
            evaluate=lambda packages: evaluate_packages(packages, cells, options, _progress),
            evaluate_afresh=lambda packages: evaluate_afresh(packages, cells, again, _progress),
            releases=known,
            output=_output,
        )
        for culprit in bisect.culprits():
            report(bisect, culprit, options, command=_typed(), progress=_progress, output=_output)
    return 0


def _typed() -> str:
    return shlex.join(["zerogate", *sys.argv[1:]])


def _check(packages: Sequence[str], tried: Sequence[str]) -> None:
    """Raise ConfigError for packages that cannot be laid over, or are under test (``tried``)."""
    for text in packages:
        try:
            check_requirement(text)
        except ConfigError as error:
            raise ConfigError(f"--with: {error}") from None
        name = re.match(r"[\w.-]*", text)
        if name and canonicalize_name(name[0]) in map(canonicalize_name, tried):
            raise ConfigError(
                f"--with: {text}: its releases are under test; expected other packages"
            )


def _cells(text: str, option: str = "--cells") -> list[Cell]:
    project = Project(Path.cwd())
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            cell = parse_cell(part)
        except ValueError as error:
            raise ConfigError(f"{option}: {error}") from None
        for file in (project.workload_file(cell.workload), project.strategy_file(cell.strategy)):
            if not file.is_file():
                raise ConfigError(
                    f"{option}: {part}: no {file.relative_to(project.root)} here; choose another, "
                    "or run this in the project's folder"
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
            f"--metric: {name} comes from the batch size search, which is not run here; expected a "
            "metric of training"
        )
    if metric.scope != "portable":
        raise ConfigError(
            f"--metric: {name} depends on the hardware; expected a metric of bytes, counts, losses "
            "or quality"
        )


@contextmanager
def _reporting(name: str) -> Iterator[Options]:
    """Yield options with a report folder of that name, locked against other runs."""
    folder = Project(Path.cwd()).report / name
    folder.mkdir(parents=True, exist_ok=True)
    if (lock := lock_folder(folder)) is None:
        raise ConfigError(f"{folder}: another run is writing there; wait for it")
    with lock:
        yield Options(root=Path.cwd(), report_folder=folder)


def _output(text: str) -> None:
    print(text, flush=True)


def _progress(update: ProgressUpdate) -> None:
    cell = f"{update.cell.id}: " if update.cell else ""
    print(f"  {cell}{update.text}", file=sys.stderr, flush=True)
