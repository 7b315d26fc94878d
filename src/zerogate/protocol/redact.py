"""Secrets in environment variables, which no log, record or report may contain."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

SECRET = re.compile(
    r"token(?!izer)|secret|passw|credential|api_?key|access_?key|private_?key", re.IGNORECASE
)

SHORTEST = 6
"""Characters of the shortest secret: masking shorter values would mask words."""


def is_secret(name: str) -> bool:
    return SECRET.search(name) is not None


def masked(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return ``text`` with every secret's value replaced by its variable's name in angle brackets."""
    for name, value in environment.items():
        if is_secret(name) and len(value.strip()) >= SHORTEST:
            text = text.replace(value.strip(), f"<{name}>")
    return text
