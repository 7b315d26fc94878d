"""Progress of the session on the terminal."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from zerogate.protocol.cell import Cell
    from zerogate.session.progress import ProgressUpdate


class TerminalProgress:
    """Lines for what takes long: the cell, its number among all, the launch, the time so far."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._started = time.monotonic()
        self._seen: dict[Cell, int] = {}
        self.total = 0
        self.after_dots = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.after_dots = self._config.get_verbosity() < 0

    def show(self, update: ProgressUpdate) -> None:
        """Write a line if something started, unless pytest runs with ``-qq``."""
        if update.state != "started" or self._config.get_verbosity() < -1:
            return
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        capture = self._config.pluginmanager.getplugin("capturemanager")
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        line = f"{minutes}:{seconds:02d}  {update.text}"
        if update.cell is not None:
            # A DDP reference that was not selected itself is one cell more.
            number = self._seen.setdefault(update.cell, len(self._seen) + 1)
            self.total = max(self.total, number)
            line = (
                f"[{number}/{self.total}] {update.cell.id}: {update.text}, {minutes}:{seconds:02d}"
            )
        if reporter is not None:
            with capture.global_and_fixture_disabled() if capture else nullcontext():
                reporter.ensure_newline()
                reporter.write_line(f"\n{line}" if self.after_dots else line)
            self.after_dots = False
