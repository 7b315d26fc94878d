"""Unmet requirements of the packages in a folder, and of the environment's own."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from zerogate.protocol.stack import installed_version


def distributions(site: Path) -> Iterator[tuple[str, importlib.metadata.Distribution]]:
    """Yield the packages in ``site``, each with its name."""
    for one in importlib.metadata.distributions(path=[str(site)]):
        yield canonicalize_name(one.name), one


def unmet(site: Path) -> list[str]:
    """Return the requirements of the packages in ``site`` that nothing meets.

    They include those of the extras that the packages require of one another (torch's CUDA
    libraries are extras of another package).
    """
    inside = dict(distributions(site))
    extras = {name: {""} for name in inside}
    missing = set()
    waiting = list(inside)
    while waiting:
        name = waiting.pop()
        for wanted in _active(inside[name], extras[name]):
            other = canonicalize_name(wanted.name)
            version = inside[other].version if other in inside else installed_version(other)
            if version is None or not wanted.specifier.contains(version, prereleases=True):
                wanted.marker = None
                missing.add(str(wanted))
            elif other in inside and not wanted.extras <= extras[other]:
                extras[other] |= wanted.extras
                waiting.append(other)
    return sorted(missing)


def _active(one: importlib.metadata.Distribution, extras: set[str]) -> Iterator[Requirement]:
    """Yield the requirements of ``one`` that apply here, with ``extras``."""
    for text in one.requires or []:
        wanted = Requirement(text)
        if wanted.marker is None or any(
            wanted.marker.evaluate({"extra": extra}) for extra in extras
        ):
            yield wanted


def unmet_below(root: str) -> Iterator[tuple[str, Requirement]]:
    """Yield the unmet requirements of all packages below ``root``, each with the requiring package.

    What ``root`` itself requires is not among them.
    """
    own = {
        canonicalize_name(one.name) for one in _active(importlib.metadata.distribution(root), {""})
    }
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(root), "")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen or installed_version(name) is None:
            continue
        seen.add((name, extra))
        for wanted in _active(importlib.metadata.distribution(name), {extra}):
            other = canonicalize_name(wanted.name)
            version = installed_version(other)
            met = version is not None and wanted.specifier.contains(version, prereleases=True)
            if not met and other not in own:
                wanted.marker = None
                yield name, wanted
            waiting += [(other, one) for one in ("", *wanted.extras)]
