"""The terminal's summary: the article's tables, measured here, in 80 columns."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterable, Sequence

from zerogate.metrics.batch_size import SIZE, BatchSize
from zerogate.metrics.measurement import SPEEDUP_AT_MAX, Measurement, speedup_at_max, speedup_over
from zerogate.metrics.table import METRICS
from zerogate.protocol.cell import Cell
from zerogate.protocol.units import MIB
from zerogate.report.formatting import binary, percent, sentence, word
from zerogate.report.results import ModelStates, model_states
from zerogate.session.session import Session
from zerogate.verdicts.reference_results import ReferenceResults
from zerogate.verdicts.verdict import GRAVITY, Verdict

WIDTH = 80
UNJUDGED = "(*)"
NARROW = 5
"""Characters of a title that needs no hyphen."""


def summary(session: Session) -> str:
    """Return a table for each workload, tier and number of ranks, and lines on what is notable.

    These lines are the errors, the regressions and the improvements.
    """
    cells = sorted({*session.measurements, *dict(session.errors)}, key=_article_order)
    groups: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.workload, cell.tier, cell.world_size), []).append(cell)
    parts = [_table(session, group) for group in groups.values()]
    notable = [
        verdict for verdict in session.verdicts if verdict.status in ("regressed", "improved")
    ]
    if smallest := smallest_visible(session.verdicts):
        text = f"smallest visible change: {smallest}"
        parts.append("\n".join(textwrap.wrap(text, WIDTH, subsequent_indent="  ")) + "\n")
    lines = [f"{error.kind}: {error.summary}" for _, error in session.errors]
    lines += [sentence(verdict) for verdict in notable]
    if lines:
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _article_order(cell: Cell) -> tuple[str, str, int, bool, str]:
    """Return a sort key that puts DDP first, as in the article's tables."""
    return (cell.workload, cell.tier, cell.world_size, not cell.is_reference, cell.strategy)


def _table(session: Session, cells: list[Cell]) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    first = cells[0]
    known = next(
        (session.measurements[cell] for cell in cells if cell in session.measurements), None
    )
    quality = list(known.quality_better) if known else []
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column("Strategy", no_wrap=True)
    for title in ("Batch", "Peak\nMiB", "Train\ns/epoch", "vs\nDDP", "Eval\ns"):
        table.add_column(title, justify="right", no_wrap=True)
    for title, _ in _searched(session, cells):
        table.add_column(title, justify="right", no_wrap=True)
    for name in quality:
        table.add_column(_quality_title(name), justify="right", no_wrap=True)
    table.add_column("Verdict", no_wrap=True)
    for cell in cells:
        table.add_row(*_row(session, cell, quality, _searched(session, cells)))
    text = io.StringIO()
    Console(file=text, width=WIDTH, no_color=True, highlight=False).print(table)
    lines = [_title(first, known), *text.getvalue().splitlines()]
    if any(line.rstrip().endswith(UNJUDGED) for line in lines):
        lines.append(f"{UNJUDGED} but not everything could be judged; pytest's summary says why")
    lines += _model_states(session, cells)
    if _searched(session, cells):
        lines += _processes(session, cells)
        for (cell, _), found in session.batch_sizes.items():
            if cell in cells and (note := _batch_note(found)):
                note = f"{cell.strategy}: {note}"
                lines += textwrap.wrap(note, WIDTH, subsequent_indent="    ")
        for results in session.reference_results:
            lines += reference_lines(results, cells, session.hardware(first))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _batch_note(found: BatchSize) -> str:
    """Return what to know of a batch size: which memory was short, or how narrowly it fits."""
    if not found.size:
        return f"OOM at 1: {found.note}"
    if not found.allocator_retries:
        return ""
    title = METRICS[SIZE[found.kind]].title
    return f"{title}: {found.size} fits, with {found.allocator_retries} retries of the allocator"


def _model_states(session: Session, cells: Iterable[Cell]) -> list[str]:
    """Return lines with bytes per parameter beside the ZeRO paper's; none without measurements."""
    found = [
        _states_in_words(cell.strategy, states)
        for cell in cells
        if (states := model_states(session, cell)) is not None
    ]
    title = "model states, bytes a parameter (by the ZeRO papers): "
    return textwrap.wrap(title + ", ".join(found), WIDTH, subsequent_indent="  ") if found else []


def _states_in_words(strategy: str, states: ModelStates) -> str:
    text = f"{strategy} {states.device:.1f} ({states.paper.device:.0f})"
    if states.host is None or not states.paper.host:
        return text
    return f"{text} and on the host {states.host:.1f} ({states.paper.host:.0f})"


def _processes(session: Session, cells: Iterable[Cell]) -> list[str]:
    """Return lines with each process's peak at the largest batch, beside its budget; none on a CPU."""
    found = [
        f"{cell.strategy} {binary(size.process_bytes)} of {binary(size.budget_bytes)}"
        for (cell, _), size in session.batch_sizes.items()
        if cell in cells and size.process_bytes
    ]
    title = "processes at their largest batch, of the budget: "
    return textwrap.wrap(title + ", ".join(found), WIDTH, subsequent_indent="  ") if found else []


def _title(cell: Cell, measurement: Measurement | None) -> str:
    title = f"{cell.workload}, {cell.world_size} ranks, {cell.tier} tier"
    if measurement is None:
        return title
    millions = measurement.settings["parameters"] / 1e6
    return f"{title}, {millions:.1f}M parameters, {measurement.settings['data_origin']} data"


def _searched(session: Session, cells: Iterable[Cell]) -> list[tuple[str, str]]:
    """Return title and metric of each column on batch sizes; none if no cell was searched."""
    kinds = {kind for cell, kind in session.batch_sizes if cell in cells}
    found = []
    if "train" in kinds:
        found += [("Max\nbatch", SIZE["train"]), ("vs DDP\nat max", SPEEDUP_AT_MAX)]
    if "eval" in kinds:
        found += [("Max\neval", SIZE["eval"])]
    return found


def _row(
    session: Session, cell: Cell, quality: Sequence[str], searched: Sequence[tuple[str, str]]
) -> list[str]:
    measurement = session.measurements.get(cell)
    if measurement is None:
        return [cell.strategy, *["-"] * (5 + len(searched) + len(quality)), "ERROR"]

    def shown(name: str, form: Callable[[float], str]) -> str:
        value = measurement.value(name)
        return form(value) if isinstance(value, int | float) else "-"

    reference = session.measurements.get(cell.reference)
    speedup = "-"
    if not cell.is_reference and reference and reference.launches and measurement.launches:
        speedup = f"{speedup_over(reference, measurement):.2f}x"
    return [
        cell.strategy,
        str(measurement.settings["micro_batch_size"]),
        shown("peak_allocated_bytes", lambda value: f"{value / MIB:.2f}"),
        shown("epoch_seconds", lambda value: f"{value:.2f}"),
        speedup,
        shown("eval_seconds", lambda value: f"{value:.2f}"),
        *(_batch(session, cell, name) for _, name in searched),
        *(shown(name, _quality) for name in quality),
        _verdict(session, cell),
    ]


def _quality_title(name: str) -> str:
    """Return the column's title; a long one is hyphenated, because its numbers are narrow."""
    if name not in METRICS:
        return name
    title = METRICS[name].title
    title = title[0].upper() + title[1:]
    return title if len(title) <= NARROW else f"{title[: NARROW - 1]}-\n{title[NARROW - 1 :]}"


def _quality(value: float) -> str:
    return f"{value:.3f}" if abs(value) <= 1 else f"{value:.4g}"


def _batch(session: Session, cell: Cell, name: str) -> str:
    """Return a batch size, or a speedup at the largest one; "OOM" if not even one sample fits."""
    if name == SPEEDUP_AT_MAX:
        reference = session.measurements.get(cell.reference)
        if cell.is_reference or reference is None:
            return "-"
        speedup = speedup_at_max(reference, session.measurements[cell])
        return "-" if speedup is None else f"{speedup:.2f}x"
    for (its, kind), found in session.batch_sizes.items():
        if its == cell and SIZE[kind] == name:
            # "r": it fits only because the allocator returned its cache.
            return f"{found.size}{'r' * bool(found.allocator_retries)}" if found.size else "OOM"
    return "-"


def _verdict(session: Session, cell: Cell) -> str:
    """Return the gravest verdict of a cell; seconds that could not be compared do not hide an ok."""
    if cell in dict(session.errors):
        return "ERROR"
    found = [verdict for verdict in session.verdicts if verdict.cell == cell]
    found.sort(key=lambda verdict: GRAVITY.index(verdict.status))
    if not found:
        return "reference" if cell.is_reference else "-"
    if found[0].status in ("invalid", "not_comparable"):
        judged = [verdict for verdict in found if verdict.status in ("improved", "ok")]
        return f"{word(judged[0])} {UNJUDGED}" if judged else word(found[0]).lower()
    return word(found[0])


TITLES = {
    "max_micro_batch_size": "batch",
    "max_eval_batch_size": "eval batch",
    "epoch_seconds": "s/epoch",
    "eval_seconds": "s eval",
    "f1": "F1",
    "accuracy": "accuracy",
}


def reference_lines(found: ReferenceResults, cells: Iterable[Cell], hardware: str) -> list[str]:
    """Return a line for each cell with published values, below a line on their hardware."""
    rows = [
        f"  {cell.strategy}: {_values(values)}" for cell in cells if (values := found.values(cell))
    ]
    if not rows:
        return []
    note = "" if found.hardware == hardware else f"; not comparable: this is {hardware}"
    return [f"published for {found.hardware}{note}", *rows]


def _values(values: dict[str, int | float]) -> str:
    if values.get("max_micro_batch_size") == 0:
        return "OOM at 1"
    return ", ".join(
        f"{title} {values[name]:g}" for name, title in TITLES.items() if name in values
    )


def smallest_visible(verdicts: Iterable[Verdict]) -> str:
    """Return one sentence on the smallest changes that these verdicts can show.

    It names the units of which one more is seen, then the other metrics with their limits, the widest
    if cells differ. It is empty if nothing was compared with a baseline.
    """
    units: set[str] = set()
    limits: dict[str, float] = {}
    for verdict in verdicts:
        if verdict.against != "baseline" or verdict.tolerance is None:
            continue
        if verdict.status not in ("ok", "improved", "regressed") or verdict.unit == "steps":
            continue
        if verdict.tolerance == 0 and verdict.unit:
            units.add(verdict.unit.removesuffix("s"))
        elif verdict.metric in METRICS:
            title = METRICS[verdict.metric].title
            limits[title] = max(limits.get(title, 0.0), verdict.tolerance)
    exact = [f"one {' or '.join(sorted(units))}"] if units else []
    coarse = [f"{title} {percent(limits[title]).lstrip('+')}" for title in sorted(limits)]
    return ", ".join([*exact, *coarse])
