"""Requirements as pip takes them: a release, a range, a URL, a wheel, a checkout's folder."""

from __future__ import annotations

import os
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from zerogate.config.file_hash import hash_files
from zerogate.config.strategy_file import ConfigError

LONGEST_NAME = 255
URLS = ("git+", "https://", "http://", "file://")


def check_requirement(text: str) -> None:
    """Raise ConfigError for text that is neither a file nor a requirement that pip takes."""
    if local_path(text) is not None or text.startswith(URLS):
        return
    if text.strip() and Path(text[:LONGEST_NAME]).is_dir():
        raise ConfigError(
            f"{text!r} is a folder here, and also a package name for pip; expected "
            f"./{text} for the folder, or {text}==VERSION for the package"
        )
    try:
        Requirement(text)
        if text.endswith(".whl"):
            raise InvalidRequirement("a wheel that is not there")
    except InvalidRequirement:
        raise ConfigError(
            f"{text!r} is neither a requirement nor a file; expected what pip can install, like "
            "deepspeed==0.18.2, accelerate<1.12, a wheel or a checkout's folder"
        ) from None


def local_path(text: str) -> Path | None:
    """Return the file or folder that ``text`` names; None if there is none.

    As for pip, a bare word is a package name.
    """
    try:
        path = Path(text).expanduser()
        means_one = os.sep in text or text.startswith(".") or path.suffix == ".whl"
        # Absolute: Path drops the "./" of "./name", and pip would take the rest for a package name.
        return path.absolute() if means_one and "://" not in text and path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None  # Too long for a file name, or the home of an unknown user.


def stays_the_same(text: str) -> bool:
    """Return whether ``text`` will name the same package tomorrow: a local file, or one release."""
    if local_path(text) is not None:
        return True
    if text.startswith(URLS):
        return False
    wanted = Requirement(text)
    pins = [one for one in wanted.specifier if one.operator == "==" and "*" not in one.version]
    return wanted.url is None and len(pins) == 1


def content_hash(path: Path) -> str:
    """Return a hash of a wheel, or of a checkout's files without generated ones."""
    files = [path] if path.is_file() else path.rglob("*")
    return hash_files(one for one in files if not _is_made(one.relative_to(path)))


def _is_made(file: Path) -> bool:
    """Return whether git, Python or a build made the file: pip builds a checkout in place."""
    return any(
        part in (".git", "build", "__pycache__") or part.endswith(".egg-info")
        for part in file.parts
    )
