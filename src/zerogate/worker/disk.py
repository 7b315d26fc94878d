"""Bytes that DeepSpeed's offload moves to and from disk, counted in DeepSpeed's I/O calls.

The kernel's own counters miss what stays in the page cache or lies on tmpfs. These counters do not
depend on the file system.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

COUNTING = "CountingHandle"

_swapped: Counter[str] = Counter()


def swapped_bytes() -> Counter[str]:
    """Return the bytes ``read`` and ``written`` since the rank began."""
    return _swapped.copy()


def count_swapped_bytes(module: Any) -> None:
    """Make the handles of ``module``, DeepSpeed's async_io, count the bytes that they move.

    A second call changes nothing: a rank's fork server may have loaded the same module already.
    """
    if module.aio_handle.__name__ != COUNTING:
        module.aio_handle = _counting(module.aio_handle)


def _counting(handle_class: Any) -> Any:
    """Return ``handle_class`` with counted reads and writes; all of them take the tensor first."""

    def counted(name: str) -> Any:
        original = getattr(handle_class, name)
        direction = "read" if name.endswith("read") else "written"

        def call(self: Any, tensor: Any, *arguments: Any) -> Any:
            _swapped[direction] += tensor.numel() * tensor.element_size()
            return original(self, tensor, *arguments)

        return call

    names = [name for name in dir(handle_class) if name.endswith(("read", "write"))]
    return type(COUNTING, (handle_class,), {name: counted(name) for name in names})
