"""What a person asks pip for: a release, a range, a URL, a wheel, a checkout's folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from zerogate.config.strategy_file import ConfigError

LONGEST_NAME = 255
URLS = ("git+", "https://", "http://", "file://")


def check_requirement(text: str) -> None:
    """Raises ConfigError for what is neither a file nor anything that pip takes."""
    if local_path(text) is not None or text.startswith(URLS):
        return
    if text.strip() and Path(text[:LONGEST_NAME]).is_dir():
        raise ConfigError(
            f"{text!r} is a folder here, and to pip a package's name; expected one or the other: "
            f"./{text} for the folder, {text}==VERSION for the package"
        )
    try:
        Requirement(text)
        if text.endswith(".whl"):
            raise InvalidRequirement("a wheel that is not there")
    except InvalidRequirement:
        raise ConfigError(
            f"{text!r} is neither a requirement nor a file; expected what pip installs, like "
            "deepspeed==0.18.2, accelerate<1.12, a wheel or a checkout's folder"
        ) from None


def local_path(text: str) -> Path | None:
    """The file or folder that is meant, by pip's rule: a bare word is a package's name."""
    try:
        path = Path(text).expanduser()
        means_one = os.sep in text or text.startswith(".") or path.suffix == ".whl"
        # Absolute: pip would take "./name" without its beginning for a package's name.
        return path.absolute() if means_one and "://" not in text and path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None  # Too long for a name; somebody's home who is nobody.


def stays_the_same(text: str) -> bool:
    """Whether the same words will be the same package tomorrow: a file that is here, or one release."""
    if local_path(text) is not None:
        return True
    if text.startswith(URLS):
        return False
    wanted = Requirement(text)
    pins = [one for one in wanted.specifier if one.operator == "==" and "*" not in one.version]
    return wanted.url is None and len(pins) == 1


def content_hash(path: Path) -> str:
    """A hash of a wheel, or of a checkout's files without git's."""
    found = hashlib.sha256()
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    for one in files:
        if one.is_file() and not _is_made(one.relative_to(path)):
            found.update(str(one).encode() + b"\0" + one.read_bytes())
    return found.hexdigest()


def _is_made(file: Path) -> bool:
    """Whether git, Python or a build made it: pip builds a checkout where it lies."""
    return any(
        part in (".git", "build", "__pycache__") or part.endswith(".egg-info")
        for part in file.parts
    )
