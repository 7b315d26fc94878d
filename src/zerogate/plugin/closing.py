"""Results and baselines that are written when a session ends, and the lines that say so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from zerogate.plugin.stash import CLOSING_LINES, LAST_LINE, SKIP_REASONS
from zerogate.protocol.cell import Cell

if TYPE_CHECKING:
    from zerogate.session.runner import Runner
    from zerogate.session.session import Session

REASONS_SHOWN = 3
"""Different reasons that one line has room for."""


def write_everything(session: pytest.Session, found: Session, exitstatus: int) -> None:
    """Write results and, on request, baselines; keep what to say about them for the summary."""
    # Imported here: neither is needed to collect.
    from zerogate.report.results import write_results
    from zerogate.session.record_baselines import record_baselines

    lines = session.config.stash[CLOSING_LINES] = []
    start = session.config.invocation_params.dir
    try:
        results = write_results(found)
        if found.against is not None:
            lines.append(f"held to {found.against.name}: {_count(found.against.runner)}")
        lines.append(f"{_count(found.runner)}; everything is in {_relative(results, start)}")
        whole = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        if whole and not found.errors:
            found.finish()
        if whole and found.options.update_baselines:
            written, left = record_baselines(found, found.options.reason)
            lines += [f"recorded {_relative(path, start)}" for path in written]
            lines += [f"not recorded: {cell.id}: {why}" for cell, why in sorted(left.items())]
            if not written and not left:
                lines.append("no baseline recorded: nothing differs from the old ones")
    except OSError as error:
        # Continue, so that the tables are shown.
        lines.append(f"cannot write {error.filename2 or error.filename}: {error.strerror}")
        if exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def require_cells(session: pytest.Session, requested: set[Cell], measured: set[Cell]) -> None:
    """Let the run exit with 1, and say why, if none of the ``requested`` cells was measured.

    Also if every test was skipped, which is a success to pytest. Runs that ended early, or that only
    collect, keep their exit code.
    """
    ended = (
        pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED,
    )  # fmt: skip
    collects = session.config.option.collectonly
    if collects or session.exitstatus not in ended or requested & measured:
        return
    session.exitstatus = pytest.ExitCode.TESTS_FAILED
    line = f"require-cells: {_nothing_measured(session.config.stash[SKIP_REASONS], requested)}"
    session.config.stash.setdefault(CLOSING_LINES, []).append(line)
    session.config.stash[LAST_LINE] = line


def _nothing_measured(reasons: list[str], requested: set[Cell]) -> str:
    if not requested:
        return "no cell was requested; name some, or leave --require-cells out"
    text = f"none of the {len(requested)} requested cells was measured"
    if len(requested) == 1:
        text = "the requested cell was not measured"
    different = list(dict.fromkeys(reasons))
    if not different:  # They failed, or -x ended the run before them.
        return f"{text}; see above"
    more = len(different) - REASONS_SHOWN
    shown = [*different[:REASONS_SHOWN], *([f"{more} more reasons"] if more > 0 else [])]
    return f"{text}: {'; '.join(shown)}; zerogate doctor says what is missing"


def _count(runner: Runner) -> str:
    text = f"{runner.launches} launch{'es' if runner.launches != 1 else ''}"
    if runner.helped_launches:
        text += f", {runner.helped_launches} of them side by side"
    if runner.resumed_launches:
        text += f", {runner.resumed_launches} of them kept from the interrupted run"
    return text


def _relative(path: Path, start: Path) -> Path:
    return path.relative_to(start) if path.is_relative_to(start) else path
