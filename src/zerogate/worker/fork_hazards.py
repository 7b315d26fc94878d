"""Hazards of a fork whose child will use CUDA: a context, and threads. Neither survives it.

What the checks rest on:

- torch sets ``torch.cuda.is_initialized()`` with its context. Its own way to count devices through
  the driver leaves that false, but it marks every later fork as bad (``_is_in_bad_fork``), so a
  child is asked. ``PYTORCH_NVML_BASED_CUDA_CHECK=1`` makes it count through NVML, which does neither.
- Code that torch does not know of, such as a library's own ``cuInit``, opens the driver's device for
  unified memory. NVML does not: it works in containers that lack that device.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

UNIFIED_MEMORY = "nvidia-uvm"

EXPECTED_THREADS = {
    threading.main_thread().name,
    # ``worker.parent_death``: it waits in one system call and holds no lock.
    "zerogate-exit",
    # pyarrow's allocator, which stops it before a fork and starts it again on both sides.
    "jemalloc_bg_thd",
}

MOST_OPENINGS = 1000
"""Times that NVML is closed at most: it counts how often it was opened."""


def fork_hazard(process: Path = Path("/proc/self")) -> str:
    """Return why children of this process cannot use CUDA; empty if they can.

    ``process`` is this process's folder in /proc.
    """
    import torch

    if torch.cuda.is_initialized():
        return "torch has a CUDA context, which does not survive a fork"
    if _forks_are_bad():
        return "torch has called the CUDA driver, which does not survive a fork"
    if UNIFIED_MEMORY in {path.name for path in _open_files(process)}:
        return (
            f"a library has called the CUDA driver (/dev/{UNIFIED_MEMORY} is open), "
            "which does not survive a fork"
        )
    if threads := sorted(set(_threads(process)) - EXPECTED_THREADS):
        return f"threads run beside the main one, and a fork ends them: {', '.join(threads)}"
    return ""


def _forks_are_bad() -> bool:
    """Return whether torch refuses CUDA in a child of this process."""
    import torch

    if (child := os.fork()) == 0:
        status = 1
        try:
            status = int(torch.cuda._is_in_bad_fork())
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] != 0


def _open_files(process: Path) -> Iterator[Path]:
    for entry in (process / "fd").iterdir():
        with contextlib.suppress(OSError):  # The file of this listing is closed by now.
            yield entry.readlink()


def _threads(process: Path) -> Iterator[str]:
    """Yield the names of this process's threads: Python's own, and the kernel's for the others."""
    known = {thread.native_id: thread.name for thread in threading.enumerate()}
    for task in (process / "task").iterdir():
        with contextlib.suppress(OSError):  # It has ended.
            yield known.get(int(task.name)) or (task / "comm").read_text().strip()


def close_nvml() -> bool:
    """Close NVML, which torch and DeepSpeed open and leave open; return whether it can be opened.

    Its documentation does not mention forks, so every rank opens it for itself.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # There is no driver.
        return False
    with contextlib.suppress(pynvml.NVMLError):
        for _ in range(MOST_OPENINGS):
            pynvml.nvmlShutdown()
            pynvml.nvmlSystemGetDriverVersion()  # Fails once it is closed; closing need not.
    return True


def open_nvml() -> None:
    """Open NVML, as DeepSpeed did when it was imported."""
    import pynvml

    with contextlib.suppress(pynvml.NVMLError):  # DeepSpeed ignores that too.
        pynvml.nvmlInit()
