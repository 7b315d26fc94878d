"""Idle levels: a wait until devices are back at their level before the next launch.

Memory that the last launch left there would be measured as the next one's, and would reduce the
batch size that fits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from zerogate.devices.attribution import Reading
from zerogate.devices.nvml import DeviceReadings, current_readings, graphics_processes
from zerogate.launch.errors import LauncherFailedError

BOUND_BYTES = 64 * 2**20
"""Tolerance above the idle level: less than a CUDA context takes on any card, and more than the
driver's own use varies."""

WAIT_SECONDS = 30.0
"""Longest wait: the driver takes memory back some time after the process is gone."""

POLL_SECONDS = 0.2


class IdleLevels:
    """The lowest memory use of each device before any launch of this session."""

    def __init__(self, wait_seconds: float | None = None) -> None:
        self._wait_seconds = WAIT_SECONDS if wait_seconds is None else wait_seconds
        self._levels: dict[str, int] = {}
        self._lists_processes: set[str] = set()

    def await_idle(self, uuids: Sequence[str], progress: Callable[[str], None]) -> None:
        """Wait until the devices are back within BOUND_BYTES of their levels.

        Memory that a process still holds after WAIT_SECONDS is reported to ``progress``; the launch
        goes on, with its seconds invalid and that memory not counted as the ranks'. Devices that
        NVML does not report are not waited for.

        Raises LauncherFailedError if memory is still in use that no process holds. It does so only
        on a device for which NVML has listed processes before: in some containers it lists none.
        """
        give_up = time.monotonic() + self._wait_seconds
        while above := self._above(found := current_readings(uuids)):
            if time.monotonic() > give_up:
                break
            time.sleep(POLL_SECONDS)
        for uuid in above:
            holders = sorted({*(found[uuid].processes or ()), *graphics_processes(uuid)})
            over = f"{uuid}: {above[uuid] / 2**20:.0f} MiB above its idle level"
            if not holders and uuid in self._lists_processes:
                raise LauncherFailedError(
                    f"{over} {self._wait_seconds:g} s after the last launch, and NVML lists no "
                    f"process on it; expected at most {BOUND_BYTES // 2**20} MiB; check "
                    "nvidia-smi, and reset the device if nothing uses it"
                )
            who = (
                f"process {', '.join(map(str, holders))}"
                if holders
                else "a process that NVML does not list"
            )
            progress(f"{over}: in use by {who}")
        for uuid, reading in found.items():
            level = self._levels.get(uuid, reading.used_bytes)
            self._levels[uuid] = min(level, reading.used_bytes)

    def saw(self, watched: Mapping[str, DeviceReadings]) -> None:
        """Remember the devices for which NVML listed a process while a launch ran."""
        self._lists_processes |= {
            uuid
            for uuid, one in watched.items()
            if any(reading.processes for reading in one.during)
        }

    def _above(self, found: dict[str, Reading]) -> dict[str, int]:
        """Return the bytes above its level of each device that exceeds it by BOUND_BYTES."""
        over = {
            uuid: reading.used_bytes - self._levels.get(uuid, reading.used_bytes)
            for uuid, reading in found.items()
        }
        return {uuid: size for uuid, size in over.items() if size > BOUND_BYTES}
