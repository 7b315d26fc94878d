"""Text of unknown origin as one line of a message."""

from __future__ import annotations


def last_line(text: str) -> str:
    """What a program said last; empty where it said nothing."""
    return one_line(
        next((line for line in reversed(text.splitlines()) if line.strip()), "").strip()
    )


def one_line(text: str) -> str:
    """``text`` with what cannot be printed on one line escaped: a file's own keys may hold anything."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
