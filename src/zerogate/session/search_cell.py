"""A controller of its own for the batch-size searches of one cell, started by ``session.side_by_side``.

Each line of its standard output is a line of progress. It leaves its launches in the report folder.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from zerogate.config.options import Options
from zerogate.config.strategy_file import ConfigError
from zerogate.config.validation import from_json
from zerogate.launch.errors import LaunchFailedError
from zerogate.protocol.cell import Cell
from zerogate.protocol.job import BatchKind
from zerogate.protocol.prctl import adopt_orphans, signal_at_parent_death
from zerogate.session.factory import join_session
from zerogate.session.progress import ProgressUpdate
from zerogate.session.signals import interrupt_on_signals

INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """The searches of one cell, for a session with these options. ``parent_pid`` is the session's."""

    options: Options
    cell: Cell
    kinds: tuple[BatchKind, ...]
    parent_pid: int


def main(folder: Path) -> int:
    """Carry out the request in ``folder``, where logs go too, and return the exit code."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # It may be ignored; the session sends it.
    interrupt_on_signals()
    signal_at_parent_death(signal.SIGTERM)
    adopt_orphans()
    request = from_json(SearchRequest, request_path(folder).read_bytes())
    if os.getppid() != request.parent_pid:
        return INTERRUPTED
    try:
        _search(request, folder)
    except LaunchFailedError as error:
        print(f"{error.kind}: {error.summary}", flush=True)
        return 1
    except (ConfigError, OSError, ValueError) as error:
        print(str(error), flush=True)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _search(request: SearchRequest, folder: Path) -> None:
    session = join_session(request.options, folder, _tell)
    cell = request.cell
    try:
        for kind in request.kinds:
            if kind == "eval" and not session.measurements[cell].evaluates_by_generating:
                continue
            session.batch_size(cell, kind)
    finally:
        session.close()


def _tell(update: ProgressUpdate) -> None:
    if update.state == "started":
        print(update.text, flush=True)


def request_path(folder: Path) -> Path:
    """Return the file in ``folder`` that holds the request."""
    return folder / "request.json"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
