"""Compiled ops that ranks load, built once per stack and CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zerogate.devices.host import native_folder
from zerogate.environment.variables import rank_environment
from zerogate.launch.locks import hold_lock
from zerogate.launch.process_tree import Helper
from zerogate.protocol.cell import Tier
from zerogate.protocol.native_sources import sources_version

if TYPE_CHECKING:
    from filelock import FileLock

BUILD_SECONDS = 1800.0
STALE_SECONDS = 60.0
EMULATED_DEVICE = "emulated_device"
ONCE = "once for this stack and CPU"


@dataclass(frozen=True, slots=True)
class Missing:
    """The reason why a cell's compiled ops are missing. ``absent``: the machine lacks what they
    need. ``failed``: the machine has it, but the build failed.
    """

    absent: str = ""
    failed: str = ""


def sources_of(name: str) -> str:
    """Return what the mark of a built op says of its sources: a hash of the emulated device's.

    The folder of the ops is named for DeepSpeed's sources already.
    """
    return sources_version() if name == EMULATED_DEVICE else ""


@dataclass(frozen=True, slots=True)
class _Build:
    """A build that runs in the background, and the lock on the cache that it holds."""

    names: tuple[str, ...]
    helper: Helper
    lock: FileLock


class NativeOps:
    """The compiled ops of a tier in the cache, and the reasons why some are missing."""

    def __init__(
        self,
        cache: Path,
        tier: Tier,
        *,
        progress: Callable[[str], None],
        overlay: Path | None = None,
    ) -> None:
        folder = native_folder(cache, overlay)
        # DeepSpeed gives its ops for CUDA the same names.
        self.folder = folder if tier == "cpu" else folder / "cuda"
        self._tier: Tier = tier
        self._overlay = overlay
        self._progress = progress
        self._known: dict[str, dict[str, str]] = {}
        self._building: _Build | None = None

    def is_building(self) -> bool:
        """Return whether a build runs in the background; take its result if it has ended."""
        if self._building is not None and not self._building.helper.is_running():
            self.wait()
        return self._building is not None

    def start(self, ops: Sequence[str]) -> None:
        """Start to build those of ``ops`` that were never built; ``ensure`` waits for the end.

        Starts nothing while another session builds, or if the cache cannot be written.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / ".building")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            return  # ``ensure`` waits, or says what is wrong.
        names = self._unbuilt(ops)
        if not names:
            lock.release()
            return
        try:
            self._progress(f"compiling {', '.join(names)} in the background ({ONCE})")
            self._building = _Build(tuple(names), self._helper(names), lock)
        except BaseException:
            lock.release()
            raise

    def wait(self) -> None:
        """Wait until no build runs in the background."""
        if (build := self._building) is None:
            return
        if build.helper.is_running():
            self._progress(f"waiting for the compilation of {', '.join(build.names)}")
        try:
            self._keep(build.names, self._answer(build.names, build.helper))
        finally:
            self._building = None
            build.lock.release()

    def close(self) -> None:
        """End the build that runs in the background."""
        if (build := self._building) is not None:
            self._building = None
            build.helper.end()
            build.lock.release()

    def ensure(self, ops: Sequence[str]) -> Missing:
        """Build those of ``ops`` that were never built, and return why any of them is missing.

        On the cpu tier the emulated device is built too: nothing trains there without it.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            return Missing(
                failed=f"cache: cannot write to {self.folder} ({error.strerror}); compiled ops are "
                "kept there; set XDG_CACHE_HOME to a writable folder"
            )
        self._remove_stale_locks()
        wanted = [*ops, EMULATED_DEVICE] if self._tier == "cpu" else list(ops)
        if any(name not in self._known for name in wanted):
            self.wait()
            self._build([name for name in wanted if name not in self._known])
        absent = [self._known[name].get("absent", "") for name in wanted]
        failed = [self._known[name].get("failed", "") for name in wanted]
        return Missing("; ".join(filter(None, absent)), "; ".join(filter(None, failed)))

    def _build(self, names: Sequence[str]) -> None:
        if not names:
            return
        with hold_lock(self.folder / ".building", self._progress, "compiling"):
            if left := self._unbuilt(names):
                self._progress(f"compiling {', '.join(left)} ({ONCE})")
                self._keep(left, self._run(left))

    def _unbuilt(self, names: Sequence[str]) -> list[str]:
        """Return those of ``names`` that were never built; the others are known from now on."""
        left = [name for name in names if not self._is_built(name)]
        self._known |= {name: {} for name in names if name not in left}
        return left

    def _keep(self, names: Sequence[str], answer: Mapping[str, dict[str, str]]) -> None:
        """Keep why any of ``names`` are missing, and mark those that are not as built."""
        for name in names:
            self._known[name] = answer.get(name, {})
            if not self._known[name]:
                self._mark(name).write_text(sources_of(name))

    def _remove_stale_locks(self) -> None:
        """Remove torch's stale locks: it waits forever for one whose holder was killed in a build.

        Real builds hold our own lock too; loading a built op holds torch's only for moments.
        """
        from filelock import FileLock, Timeout

        try:
            with FileLock(self.folder / ".building", timeout=0):
                for lock in self.folder.glob("*/lock"):
                    if time.time() - lock.stat().st_mtime > STALE_SECONDS:
                        lock.unlink()
        except (Timeout, OSError):
            return  # Somebody is building, or nothing was ever built.

    def _mark(self, name: str) -> Path:
        """Return the file that marks an op as built. Asking DeepSpeed takes seconds of imports."""
        return self.folder / f".{name}-built"

    def _is_built(self, name: str) -> bool:
        mark = self._mark(name)
        return mark.exists() and mark.read_text() == sources_of(name)

    def _run(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        return self._answer(names, self._helper(names))

    def _helper(self, names: Sequence[str]) -> Helper:
        command = [sys.executable, "-m", "zerogate.worker.ops", str(os.getpid()), *names]
        return Helper(command, rank_environment(self._tier, self.folder, self._overlay))

    def _answer(self, names: Sequence[str], helper: Helper) -> dict[str, dict[str, str]]:
        try:
            done = helper.result(BUILD_SECONDS)
        except subprocess.TimeoutExpired:
            why = f"compiling {', '.join(names)} took more than {BUILD_SECONDS:.0f} s"
            return {name: {"failed": why} for name in names}
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            why = f"compiling {', '.join(names)} failed: {last}"
            return {name: {"failed": why} for name in names}
        found: dict[str, dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
        return found
