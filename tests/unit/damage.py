"""JSON files with something wrong in them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below),
    max_leaves=5,
)


def change(content: dict[str, Any], keys: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy in which ``keys`` lead to ``value``."""
    changed = copy.deepcopy(content)
    place = changed
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return changed


def without(content: dict[str, Any], keys: tuple[Any, ...]) -> dict[str, Any]:
    """A copy that lacks what ``keys`` lead to."""
    changed = copy.deepcopy(content)
    place = changed
    for key in keys[:-1]:
        place = place[key]
    del place[keys[-1]]
    return changed


def places(value: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each value below ``value``."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in items:
        yield (*keys, key)
        if isinstance(below, dict | list):
            yield from places(below, (*keys, key))


@st.composite
def damaged(draw: st.DrawFn, valid: dict[str, Any]) -> str:
    """``valid`` with one or two places changed or gone, sometimes cut off as well."""
    content = valid
    for _ in range(draw(st.integers(1, 2))):
        keys = draw(st.sampled_from(sorted(places(content), key=repr)))
        drop = draw(st.booleans())
        content = without(content, keys) if drop else change(content, keys, draw(JSON))
        if not any(True for _ in places(content)):
            break
    text = json.dumps(content)
    return text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text
