"""Which environment variables hold what must be in no log, record or report."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

SECRET = re.compile(
    r"token(?!izer)|secret|passw|credential|api_?key|access_?key|private_?key", re.IGNORECASE
)

SHORTEST = 6
"""Characters: a shorter value is no secret, and masking it would mask words."""


def is_secret(name: str) -> bool:
    return SECRET.search(name) is not None


def masked(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """``text`` with the name of the variable, in angle brackets, for every secret's value."""
    for name, value in environment.items():
        if is_secret(name) and len(value.strip()) >= SHORTEST:
            text = text.replace(value.strip(), f"<{name}>")
    return text
