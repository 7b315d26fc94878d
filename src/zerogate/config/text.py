"""Text of unknown origin as one line of a message."""

from __future__ import annotations

import os
from pathlib import Path

LOG_TAIL_BYTES = 16384


def last_line(text: str) -> str:
    """Return the last line of a program's output that is not blank; empty if there is none."""
    return one_line(
        next((line for line in reversed(text.splitlines()) if line.strip()), "").strip()
    )


def one_line(text: str) -> str:
    """Return ``text`` with unprintable characters escaped: the keys of a file may hold anything."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def last_lines(path: Path, count: int) -> str:
    """Return the last lines of a log, of at most LOG_TAIL_BYTES; empty where there is no log."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL_BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-count:])
