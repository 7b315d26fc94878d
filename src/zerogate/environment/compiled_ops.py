"""Compiled ops that ranks load, built once per stack and CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from zerogate.devices.host import native_folder
from zerogate.environment.variables import rank_environment
from zerogate.launch.locks import hold_lock
from zerogate.launch.process_tree import run_helper
from zerogate.protocol.cell import Tier

BUILD_SECONDS = 1800.0
STALE_SECONDS = 60.0
CPU_ALLOCATOR = "cpu_allocator"


@dataclass(frozen=True, slots=True)
class Missing:
    """The reason why a cell's compiled ops are missing. ``absent``: the machine lacks what they
    need. ``failed``: the machine has it, but the build failed.
    """

    absent: str = ""
    failed: str = ""


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

    def ensure(self, ops: Sequence[str]) -> Missing:
        """Build those of ``ops`` that were never built, and return why any of them is missing.

        On the cpu tier the counting allocator is built too. Without a compiler, ranks run without
        it and measure no memory.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            return Missing(
                failed=f"cache: cannot write to {self.folder} ({error.strerror}); compiled ops are "
                "kept there; set XDG_CACHE_HOME to a writable folder"
            )
        self._remove_stale_locks()
        wanted = [*ops, CPU_ALLOCATOR] if self._tier == "cpu" else list(ops)
        unbuilt = [name for name in wanted if name not in self._known]
        if unbuilt:
            self._known |= self._build(unbuilt)
        absent = [self._known[name].get("absent", "") for name in ops]
        failed = [self._known[name].get("failed", "") for name in wanted]
        return Missing("; ".join(filter(None, absent)), "; ".join(filter(None, failed)))

    def _build(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        with hold_lock(self.folder / ".building", self._progress, "compiling"):
            left = [name for name in names if not self._mark(name).exists()]
            found: dict[str, dict[str, str]] = {name: {} for name in names}
            if left:
                self._progress(f"compiling {', '.join(left)} (once for this stack and CPU)")
                found |= self._run(left)
            for name in left:
                if not found[name]:
                    self._mark(name).touch()
        return found

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

    def _run(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        command = [sys.executable, "-m", "zerogate.worker.ops", str(os.getpid()), *names]
        environment = rank_environment(self._tier, self.folder, self._overlay)
        try:
            done = run_helper(command, environment, BUILD_SECONDS)
        except subprocess.TimeoutExpired:
            why = f"compiling {', '.join(names)} took more than {BUILD_SECONDS:.0f} s"
            return {name: {"failed": why} for name in names}
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            why = f"compiling {', '.join(names)} failed: {last}"
            return {name: {"failed": why} for name in names}
        found: dict[str, dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
        return found
