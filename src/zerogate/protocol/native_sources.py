"""The C++ sources of the cpu tier's device: where they are, and their version."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "worker" / "native"


@functools.cache
def sources_version() -> str:
    """Return a hash of the sources; the library that is built from them has it in its name."""
    found = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        found.update(path.read_bytes())
    return found.hexdigest()[:8]
