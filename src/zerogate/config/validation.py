"""JSON from a file to a dataclass, checked by pydantic on the way."""

from __future__ import annotations

from typing import Any, TypeVar

from zerogate.config.text import one_line

Value = TypeVar("Value")

_adapters: dict[type[Any], Any] = {}
"""pydantic's, by what they read: made once, since that takes milliseconds."""


def from_json(kind: type[Value], content: bytes | str) -> Value:
    """``content`` as a ``kind``. Raises ValueError naming the first key that is wrong, and how."""
    # Only where something is read: importing pydantic would slow every collection down.
    from pydantic import TypeAdapter, ValidationError

    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    try:
        found: Value = _adapters[kind].validate_json(content)
    except ValidationError as error:
        first: Any = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise ValueError(one_line(f"{where}: {first['msg']}")) from None
    return found
