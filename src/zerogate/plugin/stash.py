"""Keys of the values that the plugin's modules keep in pytest's configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from zerogate.config.options import Options
from zerogate.plugin.progress import TerminalProgress

if TYPE_CHECKING:
    from zerogate.session.session import Session

OPTIONS = pytest.StashKey[Options]()
SESSION: pytest.StashKey[Session] = pytest.StashKey()
PROGRESS = pytest.StashKey[TerminalProgress]()
LOCK = pytest.StashKey[Any]()
CLOSING_LINES = pytest.StashKey[list[str]]()
SKIP_REASONS = pytest.StashKey[list[str]]()
"""Reasons why cells could not be measured, as their tests' skips say."""
LAST_LINE = pytest.StashKey[str]()
"""The line that is written after everything else."""
