"""The counting CPU allocator: built once per torch and CPU, loaded with ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths, library_paths

SOURCE = Path(__file__).parent / "native" / "cpu_allocator.cpp"


class AllocatorUnavailableError(RuntimeError):
    """The counting allocator cannot be built or loaded here; the message says what to do."""


class BuildFailedError(AllocatorUnavailableError):
    """The compiler cannot build the counting allocator against this torch."""


def build(folder: Path) -> Path:
    """Compile the allocator into ``folder`` unless it is there already; return the library.

    Takes seconds. Raises AllocatorUnavailableError if there is no C++ compiler, BuildFailedError if
    the compiler fails.
    """
    version = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:8]
    library = folder / f"zerogate_cpu_allocator-{version}.so"
    if library.exists():
        return library
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise AllocatorUnavailableError(
            "cpu memory: no C++ compiler; the counting allocator needs one to measure peak bytes; "
            "install g++ (Debian: apt install g++)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    # Ranks may build at the same time: each writes its own file, and the last one stays.
    unfinished = library.with_suffix(f".{os.getpid()}")
    result = subprocess.run(
        [
            compiler,
            "-std=c++20",
            "-O2",
            "-fPIC",
            "-shared",
            f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
            *(f"-I{path}" for path in include_paths()),
            str(SOURCE),
            *(f"-L{path}" for path in library_paths()),
            "-lc10",
            "-o",
            str(unfinished),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        first = (result.stderr.strip().splitlines() or ["no message"])[0]
        raise BuildFailedError(
            f"cpu memory: {compiler} could not build the counting allocator: {first}; "
            "expected C++20 and this torch's c10 headers; install a newer g++"
        )
    unfinished.replace(library)
    return library


class CountingAllocator:
    """Counter of every byte that torch allocates on the CPU in this process from now on."""

    def __init__(self, library: Path) -> None:
        try:
            self._library = ctypes.CDLL(str(library))
        except OSError as error:
            raise AllocatorUnavailableError(
                f"cpu memory: {library} does not load ({error}); expected the counting allocator; "
                "remove the file to rebuild it"
            ) from error
        for name in ("live_bytes", "peak_bytes", "ooms"):
            getattr(self._library, f"zerogate_{name}").restype = ctypes.c_int64
        self._library.zerogate_set_budget.argtypes = [ctypes.c_int64]
        self._library.zerogate_install()

    def live_bytes(self) -> int:
        return int(self._library.zerogate_live_bytes())

    def peak_bytes(self) -> int:
        return int(self._library.zerogate_peak_bytes())

    def ooms(self) -> int:
        """Return how often an allocation failed because of the budget."""
        return int(self._library.zerogate_ooms())

    def reset_peak(self) -> None:
        self._library.zerogate_reset_peak()

    def set_budget(self, size_bytes: int) -> None:
        """Raise ``torch.OutOfMemoryError`` from now on when live bytes would exceed ``size_bytes``.

        0 removes the budget.
        """
        self._library.zerogate_set_budget(size_bytes)
