"""Atomic writes: a reader sees the whole file or none, even on a full disk or after a crash."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` (a dataclass or a JSON object) so that a reader sees all of it or nothing."""
    text = json.dumps(value if isinstance(value, dict) else asdict(value), indent=1)
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` atomically. The data reaches the disk before the new name does."""
    with replacement(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def replacement(path: Path) -> Iterator[Path]:
    """Yield a path to write a file to, which then replaces ``path`` atomically; if writing fails, it
    is removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # The error of a full disk names no file.
        raise


def _flush(path: Path) -> None:
    """Flush a file, or a folder's names, so that they are on the disk and not only in memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
