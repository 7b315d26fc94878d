"""Setup of a cell's ranks: devices, packages, compiled ops, environment variables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zerogate.config.options import Options
from zerogate.config.strategy import Strategy, read_strategy
from zerogate.devices.assignment import Assignment, assign_devices, missing_capacity
from zerogate.environment.compiled_ops import Missing, NativeOps
from zerogate.environment.fingerprint import fingerprint
from zerogate.environment.overlay import Overlay, lay_over
from zerogate.environment.torch_cuda import cuda_lacks
from zerogate.environment.variables import rank_environment
from zerogate.protocol.cell import TIERS, Cell, Tier
from zerogate.session.progress import Progress, ProgressUpdate


class RankSetup:
    """Setup of each cell's ranks: where they run, and what they find there. It starts no rank."""

    def __init__(self, options: Options, progress: Progress) -> None:
        self.options = options
        self.overlay: Overlay | None = None
        self._progress = progress
        self._cuda_lacks: str | None = None
        self._native = self._native_ops()

    def lay_over(self) -> None:
        """Put the packages of this session's environment first on the ranks' path.

        Raises ConfigError, which does not name the option.
        """
        if packages := self.options.packages:
            self.overlay = lay_over(packages, self.options.cache_folder, self.tell)
            self._native = self._native_ops()

    def strategy(self, cell: Cell) -> Strategy:
        """Return the cell's strategy. Raises ConfigError."""
        return read_strategy(self.options.project.strategy_file(cell.strategy))

    def unavailable(self, cell: Cell) -> str:
        """Return why this machine cannot run ``cell``, with the remedy; empty if it can.

        Compiles the ops that the cell needs, once. Raises ConfigError.
        """
        return self._lacks(cell) or self.compile(cell).absent

    def _lacks(self, cell: Cell) -> str:
        """Return what this machine lacks for ``cell``, compiled ops apart."""
        if cell.tier == "cpu":
            return ""
        missing = missing_capacity(cell, self.strategy(cell), self.assignment(cell), self.options)
        if not missing and self._cuda_lacks is None:
            self._cuda_lacks = cuda_lacks(self.environment(cell))
        return missing or self._cuda_lacks or ""

    def assignment(self, cell: Cell) -> Assignment:
        """Return the devices of this machine that the cell's ranks run on."""
        return assign_devices(cell, share_device=self.options.share_device)

    def requested(self, cell: Cell) -> dict[str, Any]:
        """Return the configuration that ranks of the cell must find applied."""
        return self.strategy(cell).requested(cell, self.precision(cell))

    def environment(self, cell: Cell) -> dict[str, str]:
        """Return the environment variables of the cell's ranks."""
        overlay = self.overlay.folder if self.overlay else None
        folder = self._native[cell.tier].folder
        return rank_environment(cell.tier, folder, overlay, world_size=cell.world_size)

    def fingerprint(self) -> dict[str, str]:
        """Return everything that measurements of this session depend on, by name."""
        over = f"{self.overlay} ({self.overlay.folder.name})" if self.overlay else "nothing"
        options = self.options
        settings = options.settings() | {"--with": over}
        return fingerprint(options.project, settings, options.data_folder)

    def compile(self, cell: Cell) -> Missing:
        """Compile the ops that the cell needs, once, and return why any of them are missing."""
        return self._native[cell.tier].ensure(self.strategy(cell).ops)

    def start_compiling(self, cells: Iterable[Cell]) -> None:
        """Start to compile, beside launches, the ops of those of ``cells`` that can run here.

        Only those of the gpu tier. On the cpu tier the ranks need every core, and all cells need an op.
        Raises ConfigError.
        """
        cards = [cell for cell in cells if cell.tier == "gpu"]
        ops = {op for cell in cards for op in self.strategy(cell).ops}
        if ops:
            able = [cell for cell in cards if not self._lacks(cell)]
            ops = {op for cell in able for op in self.strategy(cell).ops}
            self._native["gpu"].start(sorted(ops))

    def is_compiling(self) -> bool:
        """Return whether ops are compiled beside launches now."""
        return self._native["gpu"].is_building()

    def finish_compiling(self) -> None:
        """Wait until nothing is compiled beside launches."""
        self._native["gpu"].wait()

    def close(self) -> None:
        """End what is compiled beside launches."""
        self._native["gpu"].close()

    def precision(self, cell: Cell) -> str | None:
        """Return the mixed precision that the machine forces on the cell; None if its file decides."""
        has_bf16 = self.assignment(cell).has_bf16
        return self.strategy(cell).forced_precision(cell.tier, has_bf16=has_bf16)

    def device_memory_bytes(self, cell: Cell) -> int:
        """Return the memory budget of a rank of the full-size cell: the option's, or the default."""
        return self.options.device_memory_bytes or self.assignment(cell).default_memory_bytes

    def tell(self, text: str, cell: Cell | None = None) -> None:
        """Report one line of progress."""
        self._progress(ProgressUpdate(text, cell))

    def _native_ops(self) -> dict[Tier, NativeOps]:
        cache, over = self.options.cache_folder, self.overlay.folder if self.overlay else None
        return {tier: NativeOps(cache, tier, progress=self.tell, overlay=over) for tier in TIERS}
