"""Templates of the script and of the report that are written for others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jinja2


def template(name: str, **filters: Callable[[Any], str]) -> jinja2.Template:
    """Return the template ``name``, which lies beside this file. A missing value is an error."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("zerogate.releases", "."),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # The results are Python and Markdown.
    )
    found.filters |= filters
    return found.get_template(name)
