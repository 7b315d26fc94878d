"""Releases of a package, from the index that pip is configured to use."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from packaging.version import InvalidVersion, Version

from zerogate.config.strategy_file import ConfigError
from zerogate.config.text import last_line
from zerogate.launch.process_tree import run_helper

SECONDS = 120.0


def releases(package: str, *, first: str | None = None, last: str | None = None) -> list[str]:
    """Return releases from ``first`` to ``last``, both included, oldest first; no pre-releases.

    Raises ConfigError if the index does not know the package, or has none of these releases.
    """
    if re.fullmatch(r"[\w.-]+", package) is None:
        raise ConfigError(f"{package!r} is not a package name; expected one without a version")
    messages = ""
    command = [sys.executable, "-m", "pip", "index", "versions", package]
    try:
        result = run_helper(command, os.environ, SECONDS)
        messages = result.stderr
        (line,) = re.findall(r"^Available versions: (.+)$", result.stdout, re.MULTILINE)
        known = line.split(", ")
    except (subprocess.TimeoutExpired, ValueError):
        lines = [line for line in messages.splitlines() if line.startswith("ERROR: ")]
        why = lines[-1].removeprefix("ERROR: ") if lines else last_line(messages) or "no answer"
        if "connection broken by" in messages:
            why = "the index cannot be reached"
        raise ConfigError(
            f"{package}: pip's index lists no releases ({why}); expected a package that pip can "
            f"install; try: pip index versions {package}"
        ) from None
    low = version(first, "--from") if first is not None else None
    high = version(last, "--to") if last is not None else None
    if low is not None and high is not None and low > high:
        raise ConfigError(f"--to: {high} is before --from {low}; expected a later release")
    wanted = sorted(
        one for one in {Version(text).public: Version(text) for text in known}.values()
        if not one.is_prerelease and (low is None or one >= low) and (high is None or one <= high)
    )  # fmt: skip
    if not wanted:
        raise ConfigError(
            f"{package}: no release from {first or 'the first'} to {last or 'the last'}; the index "
            f"has {known[-1]} to {known[0]}"
        )
    return list(map(str, wanted))


def between(package: str, good: str, bad: str) -> list[str]:
    """Return the releases from ``good`` to ``bad``, in that order. Raises ConfigError."""
    backwards = version(good, "--good") > version(bad, "--bad")
    first, last = (bad, good) if backwards else (good, bad)
    found = releases(package, first=first, last=last)
    known = {Version(one).public for one in found}
    for end in (good, bad):
        special = version(end, "--good").is_prerelease or version(end, "--good").local
        if version(end, "--good").public not in known and not special:
            raise ConfigError(
                f"{end}: not a release of {package}; between {good} and {bad} there are "
                f"{', '.join(found)}"
            )
    # Keep the ends as typed: either may be a pre-release, or a local build (2.13.0+cpu).
    ends = {Version(good).public, Version(bad).public}
    between = [one for one in found if Version(one).public not in ends]
    between = [first, *between, last]
    return between[::-1] if backwards else between


def version(text: str, option: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        raise ConfigError(f"{option}: {text!r} is not a version; expected, say, 0.18.2") from None
