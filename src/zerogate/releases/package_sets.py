"""Package sets of ``--good`` and ``--bad``: releases of one package, or of several."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from zerogate.config.strategy_file import ConfigError
from zerogate.protocol.stack import installed_version
from zerogate.releases.package_index import version


@dataclass(frozen=True, slots=True)
class PackageSets:
    """Two sets of packages. ``good`` and ``bad`` are the releases, by name, of those that differ;
    ``both`` are requirements that are part of either set.
    """

    good: Mapping[str, str]
    bad: Mapping[str, str]
    both: tuple[str, ...] = ()

    def with_releases(self, other: Mapping[str, str]) -> tuple[str, ...]:
        """Return the requirements of the good set, with ``other`` releases of some packages."""
        found = {**self.good, **other}
        return (*self.both, *(f"{name}=={release}" for name, release in found.items()))

    def moved(self, packages: Sequence[str]) -> tuple[str, ...]:
        """Return the requirements of the good set, with the bad set's releases of ``packages``."""
        return self.with_releases({name: self.bad[name] for name in packages})


def one_package(
    name: str, good: Sequence[str], bad: Sequence[str], both: Sequence[str]
) -> PackageSets:
    """Return the sets of two releases of one package. Raises ConfigError."""
    for option, texts in (("--good", good), ("--bad", bad)):
        if len(texts) != 1:
            raise ConfigError(f"{option}: given {len(texts)} times; expected one release of {name}")
        version(texts[0], option)
    if good == bad:
        raise ConfigError(f"--bad: {bad[0]} is --good too; expected two different releases")
    return PackageSets({name: good[0]}, {name: bad[0]}, tuple(both))


def several_packages(good: Sequence[str], bad: Sequence[str], both: Sequence[str]) -> PackageSets:
    """Return the sets that pins (``name==release``) and files of pins (``pip freeze``) describe.

    A package that only one set names has its installed release in the other. Raises ConfigError.
    """
    (left, others), (right, other_others) = _pins(good, "--good"), _pins(bad, "--bad")
    if unlike := sorted(others ^ other_others):
        raise ConfigError(
            f"{'--good' if unlike[0] in others else '--bad'}: {unlike[0]!r} is not a pin, and not "
            "in the other package set; expected NAME==VERSION, or the same line in both"
        )
    for own, other, option in ((left, right, "--good"), (right, left, "--bad")):
        for name in other.keys() - own.keys():
            own[name] = _installed(name, option)
    differing = sorted(name for name in left if Version(left[name]) != Version(right[name]))
    if not differing:
        raise ConfigError("--bad: the same packages as --good; expected another release of some")
    same = [
        f"{name}=={release}"
        for name, release in left.items()
        if name not in differing and release != installed_version(name)
    ]
    return PackageSets(
        {name: left[name] for name in differing},
        {name: right[name] for name in differing},
        (*both, *same),
    )


def _pins(texts: Sequence[str], option: str) -> tuple[dict[str, str], set[str]]:
    """Return the releases by package, and the lines that are no pins (``pip freeze``: checkouts)."""
    found: dict[str, str] = {}
    others = set()
    for text in texts:
        pinned = _pin(text, option)
        for line in [text] if pinned else _lines(text, option):
            plain = re.sub(r"(^|\s)#.*", "", line).partition(" --hash")[0].strip(" \\")
            pin = _pin(plain, option)
            if pin is None:
                others |= {plain} - {""}
                continue
            name, release = pin
            if not release:
                continue  # A pin for other machines.
            if found.setdefault(name, release) != release:
                raise ConfigError(
                    f"{option}: {name} is both {found[name]} and {release}; expected one release"
                )
    return found, others


def _pin(text: str, option: str) -> tuple[str, str] | None:
    """Return a pin's name and release, or None. A pin for other machines has an empty release."""
    try:
        wanted = Requirement(text)
        (one,) = wanted.specifier
        Version(one.version)
    except (InvalidRequirement, InvalidVersion, ValueError):
        return None
    if one.operator != "==" or wanted.url is not None:
        return None
    if wanted.extras:
        raise ConfigError(f"{option}: {text!r} has an extra; expected NAME==VERSION")
    here = wanted.marker is None or wanted.marker.evaluate()
    return canonicalize_name(wanted.name), one.version if here else ""


def _lines(text: str, option: str) -> list[str]:
    try:
        return Path(text).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError):
        raise ConfigError(
            f"{option}: {text!r} is neither a pin nor a file that can be read; expected "
            "NAME==VERSION, or a file of such lines; name a single package first: zerogate bisect "
            "deepspeed --good 1.0"
        ) from None


def _installed(name: str, option: str) -> str:
    found = installed_version(name)
    if found is None:
        raise ConfigError(
            f"{option}: {name} is not in that set, and not installed; expected NAME==VERSION"
        )
    return found
