"""Text of unknown origin as one line of a message."""

from __future__ import annotations


def one_line(text: str) -> str:
    """``text`` with what cannot be printed on one line escaped: a file's own keys may hold anything."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
