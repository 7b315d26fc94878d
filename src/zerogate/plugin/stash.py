"""What the plugin's modules keep in pytest's configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from zerogate.plugin.progress import Progress
from zerogate.plugin.selection import Selection

if TYPE_CHECKING:
    from zerogate.session.session import Session

SELECTION = pytest.StashKey[Selection]()
SESSION: pytest.StashKey[Session] = pytest.StashKey()
PROGRESS = pytest.StashKey[Progress]()
LOCK = pytest.StashKey[Any]()
CLOSING_LINES = pytest.StashKey[list[str]]()
