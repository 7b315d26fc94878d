"""Devices back at their idle level before the next launch: what the last one left there would be
measured as the next one's, and would take from the batch size that fits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from zerogate.devices.attribution import Reading
from zerogate.devices.nvml import Watched, graphics_processes, readings
from zerogate.launch.errors import LauncherFailedError

BOUND_BYTES = 64 * 2**20
"""Less than a CUDA context of any card takes, more than a driver's own use moves by."""

WAIT_SECONDS = 30.0
"""A process is gone before the driver has taken back what it had."""

POLL_SECONDS = 0.2


class IdleLevels:
    """The least that each device had in use before a launch of this session."""

    def __init__(self, wait_seconds: float | None = None) -> None:
        self._wait_seconds = WAIT_SECONDS if wait_seconds is None else wait_seconds
        self._levels: dict[str, int] = {}
        self._lists_processes: set[str] = set()

    def await_idle(self, uuids: Sequence[str], notify: Callable[[str], None]) -> None:
        """Wait until the devices are back within BOUND_BYTES of their levels.

        What somebody else's process holds is told to ``notify`` and not waited out: its launch's
        seconds are invalid, and its memory is not the ranks'. Raises LauncherFailedError where nobody
        holds what was not given back, on a device whose processes NVML has been seen to list: in some
        containers it lists none. Devices that NVML does not tell of are not waited for.
        """
        give_up = time.monotonic() + self._wait_seconds
        while above := self._above(found := readings(uuids)):
            if time.monotonic() > give_up:
                break
            time.sleep(POLL_SECONDS)
        for uuid in above:
            holders = sorted({*(found[uuid].processes or ()), *graphics_processes(uuid)})
            over = f"{uuid}: {above[uuid] / 2**20:.0f} MiB above its idle level"
            if not holders and uuid in self._lists_processes:
                raise LauncherFailedError(
                    f"{over} {self._wait_seconds:g} s after the last launch, and no process there; "
                    f"expected at most {BOUND_BYTES // 2**20} MiB; see nvidia-smi, and reset the "
                    "device if nothing uses it"
                )
            who = (
                f"process {', '.join(map(str, holders))}"
                if holders
                else "somebody whom NVML does not name"
            )
            notify(f"{over}: in use by {who}")
        for uuid, reading in found.items():
            level = self._levels.get(uuid, reading.used_bytes)
            self._levels[uuid] = min(level, reading.used_bytes)

    def saw(self, watched: Mapping[str, Watched]) -> None:
        """What the devices told while a launch ran."""
        self._lists_processes |= {
            uuid
            for uuid, one in watched.items()
            if any(reading.processes for reading in one.during)
        }

    def _above(self, found: dict[str, Reading]) -> dict[str, int]:
        """Bytes above its level of each device that is too far above it."""
        over = {
            uuid: reading.used_bytes - self._levels.get(uuid, reading.used_bytes)
            for uuid, reading in found.items()
        }
        return {uuid: size for uuid, size in over.items() if size > BOUND_BYTES}
