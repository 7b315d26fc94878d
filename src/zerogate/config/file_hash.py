"""Hashes of files and texts: whether two of them are the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


def hash_files(paths: Iterable[Path], *, with_paths: bool = True) -> str:
    """Return the SHA-256, in hex, of the contents of those of ``paths`` that are files, and of their
    paths too unless two places with the same content are to have the same hash.

    Python's caches do not count.
    """
    found = hashlib.sha256()
    for path in sorted(paths):
        if path.is_file() and "__pycache__" not in path.parts:
            if with_paths:
                found.update(str(path).encode() + b"\0")
            found.update(path.read_bytes())
            if with_paths:
                found.update(b"\0")
    return found.hexdigest()


def hash_text(text: str) -> str:
    """Return the first 12 hex digits of the SHA-256 of ``text``, which may be a path."""
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:12]
