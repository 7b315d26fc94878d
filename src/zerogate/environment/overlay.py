"""Overlays: packages laid over the environment, for ranks only (``--with``).

An overlay is a folder that comes first on the ranks' path. pip builds it once, without touching the
environment, and it is stored under a hash of its contents.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from zerogate.config.strategy_file import ConfigError
from zerogate.config.text import one_line
from zerogate.environment.dependencies import distributions, unmet
from zerogate.environment.requirements import content_hash, local_path, stays_the_same
from zerogate.launch.locks import hold_lock
from zerogate.launch.process_tree import run_helper
from zerogate.protocol.atomic_write import write_json
from zerogate.protocol.stack import STACK

BUILDING = ".building-"

ROUNDS = 5
"""Rounds of installing: the packages, then what they need, then what that needs, and so on."""

PIP_SECONDS = 900.0
NOT_THE_PACKAGES_FAULT = ("connection broken by", "No space left on device", "No module named pip")
IMPORT_SECONDS = 300.0


class InvalidOverlayError(ConfigError):
    """Packages that cannot be installed, or with which the stack cannot be imported.

    ``reason`` is the message of pip or Python.
    """

    def __init__(self, requirements: str, reason: str) -> None:
        super().__init__(f"invalid: {requirements}: {reason}; nothing was measured")
        self.reason = one_line(reason)


@dataclass(frozen=True, slots=True)
class Overlay:
    """An overlay. ``folder`` is first on the ranks' path; ``packages`` are versions by name."""

    folder: Path
    packages: Mapping[str, str]

    def __str__(self) -> str:
        """Return the packages under test, and the number of others in it (torch: two dozen)."""
        names = sorted(self.packages)
        shown = [name for name in names if name in STACK] or names
        text = ", ".join(f"{name} {self.packages[name]}" for name in shown)
        rest = len(names) - len(shown)
        return f"{text} and {rest} more" if rest else text


def lay_over(
    requirements: Sequence[str],
    cache: Path,
    progress: Callable[[str], None],
    imports: Sequence[str] = STACK,
) -> Overlay:
    """Return the overlay with ``requirements``, built if it is not in ``cache``.

    A requirement is what pip takes, or a folder or wheel that exists. Raises InvalidOverlayError if
    the packages are at fault, else ConfigError: the cache cannot be written, or pip cannot work.
    """
    folder = cache / "overlays"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _lay_over(requirements, folder, progress, imports)
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder}: {error.strerror}; overlays are kept there; free some "
            "space, or set XDG_CACHE_HOME to a writable folder"
        ) from None


def _lay_over(
    requirements: Sequence[str],
    folder: Path,
    progress: Callable[[str], None],
    imports: Sequence[str],
) -> Overlay:
    # A second session waits, and finds what the first one built.
    with hold_lock(folder / ".lock", progress, "building an overlay"):
        for stale in folder.glob(f"{BUILDING}*"):
            shutil.rmtree(stale, ignore_errors=True)  # Left by a session that was killed.
        request = folder / f"{_request(requirements)}.json"
        key = _known(request)
        if not key or not _whole(folder / key):
            progress(f"building the overlay of {', '.join(requirements)}")
            key = _build(requirements, folder, imports)
            if all(map(stays_the_same, requirements)):
                write_json(request, {"requirements": list(requirements), "folder": key})
    return _overlay(folder / key)


def _known(request: Path) -> str:
    """Return the folder built for ``request``; empty if there is none, or the file is not ours."""
    try:
        key = json.loads(request.read_text())["folder"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return key if isinstance(key, str) and re.fullmatch(r"[0-9a-f]{16}", key) else ""


def _whole(folder: Path) -> bool:
    """Return whether every installed module is still there: for a removed one, ranks would import
    the environment's.
    """
    packages = [one for _, one in distributions(folder)] if folder.is_dir() else []
    return bool(packages) and all(
        (folder / file).exists()
        for one in packages
        for file in one.files or []
        if file.suffix == ".py" and ".." not in file.parts
    )


def _overlay(folder: Path) -> Overlay:
    return Overlay(folder, {name: one.version for name, one in distributions(folder)})


def _request(requirements: Sequence[str]) -> str:
    """Return a hash of the requirements and of the installed packages, which they may need."""
    found = hashlib.sha256(sys.version.encode())
    installed = {f"{one.name} {one.version}" for one in importlib.metadata.distributions()}
    for text in [*sorted(installed), *(str(local_path(one) or one) for one in requirements)]:
        found.update(os.fsencode(text) + b"\0")
    for path in filter(None, map(local_path, requirements)):
        found.update(content_hash(path).encode())
    return found.hexdigest()[:16]


def _build(requirements: Sequence[str], folder: Path, imports: Sequence[str]) -> str:
    """Install into a folder in ``folder``; return its name, a hash of its contents."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=BUILDING) as scratch:
        wanted = [str(local_path(text) or text) for text in requirements]
        for number in range(ROUNDS):
            # A new folder each round: pip does not replace what exists.
            site = Path(scratch) / f"site{number}"
            _pip(requirements, ["--target", str(site), *wanted], Path(scratch))
            if not (missing := unmet(site)):
                break
            wanted += missing
        else:
            raise _invalid(requirements, f"they still need {', '.join(missing)}")
        _check_imports(requirements, _overlay(site), imports)
        found = hashlib.sha256(sys.version.encode())
        for name, one in sorted(distributions(site), key=lambda pair: pair[0]):
            found.update(f"{name} {one.version} {one.read_text('RECORD')}\0".encode())
        key = found.hexdigest()[:16]
        shutil.rmtree(folder / key, ignore_errors=True)  # If it exists, it is damaged.
        site.rename(folder / key)
    return key


def _pip(requirements: Sequence[str], arguments: Sequence[str], scratch: Path) -> None:
    """Run ``pip install`` with its temporary files in ``scratch``. Raises ConfigError."""
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", *arguments]
    own = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "DS_BUILD_OPS": "0"}
    own["TMPDIR"] = str(scratch)
    try:
        result = run_helper(command, os.environ | own, PIP_SECONDS)
    except subprocess.TimeoutExpired:
        raise _invalid(requirements, f"pip took more than {PIP_SECONDS:.0f} s") from None
    if result.returncode:
        log = scratch.parent / "pip.log"
        log.write_text(result.stdout + result.stderr)
        for sign in NOT_THE_PACKAGES_FAULT:
            if sign in result.stderr:
                raise ConfigError(
                    f"{' '.join(requirements)}: pip could not do its work ({sign}; full "
                    f"output: {log}); the package itself may be fine; fix that, and try again"
                )
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        last = (errors or lines or ["no message"])[-1].strip()
        raise _invalid(requirements, f"pip: {last} (full output: {log})")


def _check_imports(requirements: Sequence[str], overlay: Overlay, imports: Sequence[str]) -> None:
    """Check that the stack imports, and that the packages of the overlay are the ones imported."""
    code = (
        "import importlib, json, sys\n"
        "sys.stdout, out = sys.stderr, sys.stdout\n"
        "files = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: files[name] = importlib.import_module(name).__file__\n"
        "    except BaseException as error: sys.exit(f'{name}: {type(error).__name__}: {error}')\n"
        "print(json.dumps(files), file=out)"
    )
    path = os.pathsep.join(filter(None, (str(overlay.folder), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path}
    try:
        command = [sys.executable, "-c", code, *imports]
        result = run_helper(command, environment, IMPORT_SECONDS)
    except subprocess.TimeoutExpired:
        raise _invalid(requirements, f"importing took more than {IMPORT_SECONDS:.0f} s") from None
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise _invalid(requirements, f"cannot be imported with it: {last}")
    files: dict[str, str] = json.loads(result.stdout.splitlines()[-1])
    for name, file in files.items():
        if canonicalize_name(name) in overlay.packages and not file.startswith(str(overlay.folder)):
            raise _invalid(requirements, f"{name} is still imported from {file}")


def _invalid(requirements: Sequence[str], reason: str) -> InvalidOverlayError:
    return InvalidOverlayError(" ".join(requirements), reason)
