"""Validation of JSON: pydantic checks it and makes dataclasses of it."""

from __future__ import annotations

from typing import Any, TypeVar

from zerogate.config.text import one_line

Value = TypeVar("Value")

_adapters: dict[type[Any], Any] = {}
"""pydantic's adapters by the type that they read, made once because each takes milliseconds."""


def to_json(value: object) -> bytes:
    """Return a dataclass as JSON that ``from_json`` reads."""
    from pydantic import TypeAdapter

    return TypeAdapter(type(value)).dump_json(value)


def from_json(kind: type[Value], content: bytes | str) -> Value:
    """Return ``content`` as a ``kind``. Raises ValueError with the first wrong key, and why."""
    # Imported here: importing pydantic would slow every collection down.
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
