"""The report of a bisection, ready to paste into an upstream issue."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from zerogate.config.options import Options
from zerogate.config.strategy import read_strategy
from zerogate.config.strategy_file import ConfigError
from zerogate.metrics.table import metric_named
from zerogate.protocol.atomic_write import write_text
from zerogate.releases.bisect import Bisect, Culprit
from zerogate.releases.evaluation import changes, number
from zerogate.releases.reproduction import Reproduction, reproduce
from zerogate.releases.templates import template
from zerogate.session.progress import Progress


def report(
    bisect: Bisect,
    culprit: Culprit,
    options: Options,
    *,
    command: str,
    progress: Progress,
    output: Callable[[str], None],
) -> None:
    """Write ``report-PACKAGE.md`` into the report folder.

    For the report, a script that does not use zerogate is written and run with both releases.
    """
    cell, metric = bisect.cell, bisect.metric
    alone = len(bisect.package_sets.good) == 1
    file = "reproduce.py" if alone else f"reproduce-{culprit.package}.py"
    found, why = None, f"no script can show {metric} without zerogate"
    try:
        found = reproduce(
            culprit.good.packages,
            culprit.bad.packages,
            cell,
            metric,
            title=f"{culprit.package} {culprit.first_bad} is not like {culprit.last_good}: {metric}",
            file=file,
            options=options,
            progress=progress,
        )
    except ConfigError as error:  # The rest of the report is worth writing all the same.
        why = str(error)
    path = options.report_folder / f"report-{culprit.package}.md"
    strategy = read_strategy(options.project.strategy_file(cell.strategy))
    text = as_markdown(bisect, culprit, found, command, deepspeed=strategy.is_deepspeed)
    write_text(path, text)
    if found is None:
        output(why)
    else:
        shows = "shows it too" if found.differs else "does not show it"
        output(f"{options.report_folder / file}, a script without zerogate, {shows}")
    output(f"report for an upstream issue: {path}")


def as_markdown(
    bisect: Bisect,
    culprit: Culprit,
    reproduction: Reproduction | None,
    command: str,
    *,
    deepspeed: bool,
) -> str:
    cell = bisect.cell
    return template("report.md.jinja", number=number).render(
        culprit=culprit,
        cell=cell,
        metric=metric_named(bisect.metric, culprit.bad.quality_better.get(cell.id)),
        changes=changes(culprit.good, culprit.bad),
        reproduction=reproduction,
        install=_install(culprit, deepspeed=deepspeed),
        software=[
            (name, value)
            for name, value in culprit.bad.software.items()
            # A path on this machine means nothing to others.
            if not name.endswith("_file")
        ],
        command=command,
        lines=bisect.lines,
    )


def _install(culprit: Culprit, *, deepspeed: bool) -> str:
    """Return pins of the packages that the script needs, at the versions that the ranks had."""
    software: Mapping[str, str] = culprit.bad.software
    names = ["torch", "transformers", "accelerate"]
    if deepspeed or culprit.package == "deepspeed":
        names.append("deepspeed")
    return " ".join(
        f"{name}=={software[name].partition('+')[0]}" for name in names if name in software
    )
