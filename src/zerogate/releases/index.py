"""Which releases of a package there are: pip's index is asked, whichever it is."""

from __future__ import annotations

import re
import subprocess
import sys

from packaging.version import InvalidVersion, Version

from zerogate.config_file import ConfigError

SECONDS = 120.0


def releases(package: str, *, first: str | None = None, last: str | None = None) -> list[str]:
    """Releases from ``first`` to ``last``, both included, oldest first; no pre-releases.

    Raises ConfigError where the index does not know the package, or it has none of these.
    """
    if re.fullmatch(r"[\w.-]+", package) is None:
        raise ConfigError(f"{package!r} is no package's name; expected one without a version")
    messages = ""
    command = [sys.executable, "-m", "pip", "index", "versions", package]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        messages = result.stderr
        (line,) = re.findall(r"^Available versions: (.+)$", result.stdout, re.MULTILINE)
        known = line.split(", ")
    except (subprocess.TimeoutExpired, ValueError):
        lines = [line for line in messages.splitlines() if line.startswith("ERROR: ")]
        why = lines[-1].removeprefix("ERROR: ") if lines else "no answer"
        raise ConfigError(
            f"{package}: pip's index does not tell its releases ({why}); expected a package that pip "
            f"can install; try: pip index versions {package}"
        ) from None
    low = version(first, "--from") if first is not None else None
    high = version(last, "--to") if last is not None else None
    if low is not None and high is not None and low > high:
        raise ConfigError(f"--to: {high} is before --from {low}; expected it the other way round")
    wanted = sorted(
        one for one in map(Version, known)
        if not one.is_prerelease and (low is None or one >= low) and (high is None or one <= high)
    )  # fmt: skip
    if not wanted:
        raise ConfigError(
            f"{package}: no release from {first or 'the first'} to {last or 'the last'}; the index has "
            f"{known[-1]} to {known[0]}"
        )
    return list(map(str, wanted))


def between(package: str, good: str, bad: str) -> list[str]:
    """Releases from the good end to the bad one, in that order. Raises ConfigError."""
    backwards = version(good, "--good") > version(bad, "--bad")
    first, last = (bad, good) if backwards else (good, bad)
    found = releases(package, first=first, last=last)
    for end in (good, bad):
        if end not in found:
            raise ConfigError(
                f"{end}: no release of {package}; between {good} and {bad} there are "
                f"{', '.join(found)}"
            )
    return found[::-1] if backwards else found


def version(text: str, option: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        raise ConfigError(f"{option}: {text!r} is no version; expected one like 0.18.2") from None
