"""What packages in a folder need that neither they nor the environment are."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def distributions(site: Path) -> Iterator[tuple[str, importlib.metadata.Distribution]]:
    """The packages in ``site``, by name."""
    for one in importlib.metadata.distributions(path=[str(site)]):
        yield canonicalize_name(one.name), one


def unmet(site: Path) -> list[str]:
    """Requirements of the packages in ``site`` that nothing meets, those of the extras that they ask
    of one another included (torch's CUDA libraries are extras of another package).
    """
    inside = dict(distributions(site))
    extras = {name: {""} for name in inside}
    missing = set()
    waiting = list(inside)
    while waiting:
        name = waiting.pop()
        for wanted in _active(inside[name], extras[name]):
            other = canonicalize_name(wanted.name)
            version = inside[other].version if other in inside else installed(other)
            if version is None or not wanted.specifier.contains(version, prereleases=True):
                wanted.marker = None
                missing.add(str(wanted))
            elif other in inside and not wanted.extras <= extras[other]:
                extras[other] |= wanted.extras
                waiting.append(other)
    return sorted(missing)


def _active(one: importlib.metadata.Distribution, extras: set[str]) -> Iterator[Requirement]:
    """What it requires here, with these extras."""
    for text in one.requires or []:
        wanted = Requirement(text)
        if wanted.marker is None or any(
            wanted.marker.evaluate({"extra": extra}) for extra in extras
        ):
            yield wanted


def installed(name: str) -> str | None:
    """The environment's release of a package; None where it has none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
