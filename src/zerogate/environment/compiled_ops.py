"""Sees to it that what ranks load compiled has been built, once per stack and CPU."""

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
    """Why a cell's compiled parts are not there. ``absent``: the machine lacks what they need.
    ``failed``: it does not, and building them went wrong.
    """

    absent: str = ""
    failed: str = ""


class NativeOps:
    """The compiled parts of a tier in the cache, and why those that are missing are."""

    def __init__(
        self,
        cache: Path,
        tier: Tier,
        *,
        notify: Callable[[str], None],
        overlay: Path | None = None,
    ) -> None:
        folder = native_folder(cache, overlay)
        # DeepSpeed's ops of one name are others for CUDA.
        self.folder = folder if tier == "cpu" else folder / "cuda"
        self._tier: Tier = tier
        self._overlay = overlay
        self._notify = notify
        self._known: dict[str, dict[str, str]] = {}

    def ensure(self, ops: Sequence[str]) -> Missing:
        """Build those of ``ops`` that were never built, and say which cannot be had.

        On the cpu tier the counting allocator is built too; where there is no compiler ranks do
        without it and measure no memory.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            return Missing(
                failed=f"cache: cannot write to {self.folder} ({error.strerror}); compiled parts are "
                "kept there; set XDG_CACHE_HOME to a folder that can be written"
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
        with hold_lock(self.folder / ".building", self._notify, "compiling"):
            left = [name for name in names if not self._mark(name).exists()]
            found: dict[str, dict[str, str]] = {name: {} for name in names}
            if left:
                self._notify(f"compiling {', '.join(left)} (once for this stack and CPU)")
                found |= self._run(left)
            for name in left:
                if not found[name]:
                    self._mark(name).touch()
        return found

    def _remove_stale_locks(self) -> None:
        """Torch waits for ever for a lock whose holder was killed in the middle of a build.

        Real builds happen under a lock of our own; loading what is built holds torch's for moments.
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
        """Left where an op was built: asking DeepSpeed itself takes seconds of imports."""
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
