"""Sees to it that what ranks load compiled has been built, once per stack and CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from zerogate.cell import Tier
from zerogate.devices.host import native_folder
from zerogate.launch.launcher import rank_environment

BUILD_SECONDS = 1800.0
STALE_SECONDS = 60.0
CPU_ALLOCATOR = "cpu_allocator"


class NativeOps:
    """The compiled parts in the cache, and why those that are missing are."""

    def __init__(self, cache: Path, *, notify: Callable[[str], None]) -> None:
        self.folder = native_folder(cache)
        self._notify = notify
        self._unavailable: dict[str, str] = {}

    def ensure(self, ops: Sequence[str], tier: Tier) -> dict[str, str]:
        """Build those of ``ops`` that were never built; name -> why it is unavailable ("": it is
        there). On the cpu tier the counting allocator is built too, but ranks do without it.
        """
        self._remove_stale_locks()
        wanted = [*ops, CPU_ALLOCATOR] if tier == "cpu" else list(ops)
        unbuilt = [name for name in wanted if name not in self._unavailable]
        if unbuilt:
            self._unavailable |= self._build(unbuilt, tier)
        return {name: self._unavailable[name] for name in ops}

    def _build(self, names: Sequence[str], tier: Tier) -> dict[str, str]:
        from filelock import FileLock

        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".building"):
            left = [name for name in names if not self._mark(name).exists()]
            found = dict.fromkeys(names, "")
            if left:
                self._notify(f"compiling {', '.join(left)} (once for this stack and CPU)")
                found |= self._run(left, tier)
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

    def _run(self, names: Sequence[str], tier: Tier) -> dict[str, str]:
        command = [sys.executable, "-m", "zerogate.rank.ops", *names]
        try:
            result = subprocess.run(
                command,
                env=rank_environment(tier, self.folder),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=BUILD_SECONDS,
                check=True,
            )
        except subprocess.TimeoutExpired:
            return dict.fromkeys(names, f"compiling took more than {BUILD_SECONDS:.0f} s")
        except subprocess.CalledProcessError as error:
            last = (error.stderr.strip().splitlines() or ["no message"])[-1]
            return dict.fromkeys(names, f"compiling failed: {last}")
        found: dict[str, str] = json.loads(result.stdout.splitlines()[-1])
        return found
