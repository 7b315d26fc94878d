"""What a bisection found, ready to paste into an upstream issue."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from zerogate.config.options import Options
from zerogate.config.strategy_file import ConfigError
from zerogate.metrics.table import metric_named
from zerogate.protocol.atomic_write import write_text
from zerogate.protocol.cell import Cell
from zerogate.releases.bisect import Bisect, Culprit
from zerogate.releases.evaluation import changes, number
from zerogate.releases.reproduction import Reproduction, reproduce
from zerogate.releases.templates import template
from zerogate.session.runner import Step


def report(
    search: Bisect,
    culprit: Culprit,
    options: Options,
    *,
    command: str,
    show: Callable[[Step], None],
    say: Callable[[str], None],
) -> None:
    """Write ``report-PACKAGE.md`` into the report folder, with what a script that does without zerogate
    prints for both releases, which is run for it.
    """
    cell, metric = search.cell, search.metric
    alone = len(search.package_sets.good) == 1
    file = "reproduce.py" if alone else f"reproduce-{culprit.package}.py"
    found, why = None, f"no script shows {metric} without zerogate"
    try:
        found = reproduce(
            culprit.good.packages,
            culprit.bad.packages,
            cell,
            metric,
            title=f"{culprit.package} {culprit.first_bad} is not like {culprit.last_good}: {metric}",
            file=file,
            options=options,
            show=show,
        )
    except ConfigError as error:  # The rest is known, and is to be read.
        why = str(error)
    path = options.report_folder / f"report-{culprit.package}.md"
    write_text(path, as_markdown(search, culprit, found, command))
    if found is None:
        say(why)
    else:
        shows = "shows it too" if found.differs else "does not show it"
        say(f"{options.report_folder / file}, which does without zerogate, {shows}")
    say(f"for the issue upstream: {path}")


def as_markdown(
    search: Bisect, culprit: Culprit, reproduction: Reproduction | None, command: str
) -> str:
    cell = search.cell
    return template("report.md.jinja", number=number).render(
        culprit=culprit,
        cell=cell,
        metric=metric_named(search.metric, culprit.bad.quality_better.get(cell.id)),
        changes=changes(culprit.good, culprit.bad),
        reproduction=reproduction,
        install=_install(culprit, cell),
        software=[
            (name, value)
            for name, value in culprit.bad.software.items()
            # Where it lies on this machine says nothing to others.
            if not name.endswith("_file")
        ],
        command=command,
        lines=search.lines,
    )


def _install(culprit: Culprit, cell: Cell) -> str:
    """The packages that the script takes, as the ranks had them."""
    software: Mapping[str, str] = culprit.bad.software
    names = ["torch", "transformers", "accelerate"]
    if cell.strategy.startswith("zero") or culprit.package == "deepspeed":
        names.append("deepspeed")
    return " ".join(
        f"{name}=={software[name].partition('+')[0]}" for name in names if name in software
    )
