"""Packages laid over the environment, for ranks alone: what ``--with`` asks for.

An overlay is a folder that comes first on the ranks' path. It is built once with pip, without touching
the environment, and kept by what is in it.
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
"""Of what the packages need, and of what those need in turn."""

PIP_SECONDS = 900.0
NOT_THE_PACKAGES_FAULT = ("connection broken by", "No space left on device", "No module named pip")
IMPORT_SECONDS = 300.0


class InvalidOverlayError(ConfigError):
    """Packages that cannot be installed, or with which the stack cannot be imported: ``reason`` is what
    pip or Python said.
    """

    def __init__(self, asked: str, reason: str) -> None:
        super().__init__(f"invalid: {asked}: {reason}; nothing was measured")
        self.reason = one_line(reason)


@dataclass(frozen=True, slots=True)
class Overlay:
    """``folder`` goes first on the ranks' path; ``packages`` are the versions in it, by name."""

    folder: Path
    packages: Mapping[str, str]

    def __str__(self) -> str:
        """What is under test of it, and how much besides: torch brings two dozen."""
        names = sorted(self.packages)
        shown = [name for name in names if name in STACK] or names
        text = ", ".join(f"{name} {self.packages[name]}" for name in shown)
        rest = len(names) - len(shown)
        return f"{text} and {rest} more" if rest else text


def lay_over(
    requirements: Sequence[str],
    cache: Path,
    notify: Callable[[str], None],
    imports: Sequence[str] = STACK,
) -> Overlay:
    """The overlay with ``requirements``: what pip takes, or folders and wheels that exist.

    Raises InvalidOverlayError, and ConfigError where the cache cannot be written.
    """
    folder = cache / "overlays"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _lay_over(requirements, folder, notify, imports)
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder}: {error.strerror}; overlays are kept there; free some "
            "space, or set XDG_CACHE_HOME to a folder that can be written"
        ) from None


def _lay_over(
    requirements: Sequence[str],
    folder: Path,
    notify: Callable[[str], None],
    imports: Sequence[str],
) -> Overlay:
    # The second session finds what the first built.
    with hold_lock(folder / ".lock", notify, "building an overlay"):
        for stale in folder.glob(f"{BUILDING}*"):
            shutil.rmtree(stale, ignore_errors=True)  # Of a session that was killed.
        request = folder / f"{_request(requirements)}.json"
        key = _known(request)
        if not key or not _whole(folder / key):
            notify(f"building the overlay of {', '.join(requirements)}")
            key = _build(requirements, folder, imports)
            if all(map(stays_the_same, requirements)):
                write_json(request, {"requirements": list(requirements), "folder": key})
    return _overlay(folder / key)


def _known(request: Path) -> str:
    """The folder that was built for it; empty where none was, or the file is not ours."""
    try:
        key = json.loads(request.read_text())["folder"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return key if isinstance(key, str) and re.fullmatch(r"[0-9a-f]{16}", key) else ""


def _whole(folder: Path) -> bool:
    """Whether every module that was installed is still there: ranks would take the environment's for
    one that somebody removed.
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
    """What is asked for, and beside what: what a package needs may be there or not."""
    found = hashlib.sha256(sys.version.encode())
    installed = {f"{one.name} {one.version}" for one in importlib.metadata.distributions()}
    for text in [*sorted(installed), *(str(local_path(one) or one) for one in requirements)]:
        found.update(os.fsencode(text) + b"\0")
    for path in filter(None, map(local_path, requirements)):
        found.update(content_hash(path).encode())
    return found.hexdigest()[:16]


def _build(requirements: Sequence[str], folder: Path, imports: Sequence[str]) -> str:
    """Install into ``folder``; the name of what came out, which says what is in it."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=BUILDING) as scratch:
        wanted = [str(local_path(text) or text) for text in requirements]
        for attempt in range(ROUNDS):
            # Anew each time: pip leaves folders that are there as they are.
            site = Path(scratch) / f"site{attempt}"
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
        shutil.rmtree(folder / key, ignore_errors=True)  # Damaged, if it is there.
        site.rename(folder / key)
    return key


def _pip(requirements: Sequence[str], arguments: Sequence[str], scratch: Path) -> None:
    """Have pip install, with everything that it leaves in between in ``scratch``."""
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
                    f"{' '.join(requirements)}: pip could not do its work ({sign}; all it said: "
                    f"{log}); nothing is known of the package; try again when that is mended"
                )
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        last = (errors or lines or ["no message"])[-1].strip()
        raise _invalid(requirements, f"pip: {last} (all it said: {log})")


def _check_imports(requirements: Sequence[str], overlay: Overlay, imports: Sequence[str]) -> None:
    """See that the stack imports, and that what was asked for is what is imported."""
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
