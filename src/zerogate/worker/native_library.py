"""The compiled part of the cpu tier (``worker/native``): built once per torch, loaded with ctypes."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths, library_paths

from zerogate.protocol.native_sources import SOURCES, sources_version


class LibraryUnavailableError(RuntimeError):
    """The emulated device cannot be built or loaded here; the message says what to do."""


class BuildFailedError(LibraryUnavailableError):
    """The compiler cannot build the emulated device against this torch."""


def build(folder: Path) -> Path:
    """Compile the device into ``folder`` unless it is there already; return the library.

    Takes half a minute on two cores. Raises LibraryUnavailableError if there is no C++ compiler,
    BuildFailedError if the compiler fails.
    """
    library = folder / f"zerogate_emulated_device-{sources_version()}.so"
    if library.exists():
        return library
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise LibraryUnavailableError(
            "cpu tier: no C++ compiler; its device is compiled for the torch that is installed; "
            "install g++ (Debian: apt install g++)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    # Ranks may build at the same time: each links its own file, and the last one stays.
    unfinished = library.with_suffix(f".{os.getpid()}")
    with tempfile.TemporaryDirectory(dir=folder) as objects:
        compiled = {Path(objects, path.stem + ".o"): path for path in SOURCES.glob("*.cpp")}
        _run([_compile(compiler, source, made) for made, source in compiled.items()])
        libraries = [f"-L{path}" for path in library_paths()]
        linked = ["-ltorch_cpu", "-lc10", "-o", str(unfinished)]
        _run([[compiler, "-shared", *map(str, compiled), *libraries, *linked]])
    unfinished.replace(library)
    return library


def _compile(compiler: str, source: Path, made: Path) -> list[str]:
    includes = [f"-I{path}" for path in include_paths()]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    return [
        compiler,
        "-std=c++20",
        "-O1",
        "-fPIC",
        abi,
        *includes,
        "-c",
        str(source),
        "-o",
        str(made),
    ]


def _run(commands: list[list[str]]) -> None:
    """Run the commands at the same time. Raises BuildFailedError with the first message of one."""
    running = [
        subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for command in commands
    ]
    # All are waited for: none may write to a folder that is gone.
    messages = [process.communicate()[1] for process in running]
    for process, message in zip(running, messages, strict=True):
        if process.returncode != 0:
            lines = message.strip().splitlines() or ["no message"]
            first = next((line for line in lines if "error" in line), lines[0])
            raise BuildFailedError(
                f"cpu tier: {commands[0][0]} could not build the emulated device: {first}; expected "
                f"C++20 and the headers of torch {torch.__version__}; install a newer g++"
            )


class Pool:
    """One of the three pools of memory, in bytes that torch's allocators hold in this process."""

    def __init__(self, library: ctypes.CDLL, number: int) -> None:
        self._library = library
        self._number = number

    def live_bytes(self) -> int:
        return int(self._library.zerogate_live_bytes(self._number))

    def peak_bytes(self) -> int:
        return int(self._library.zerogate_peak_bytes(self._number))

    def reset_peak(self) -> None:
        self._library.zerogate_reset_peak(self._number)

    def set_budget(self, size_bytes: int) -> None:
        """Raise ``torch.OutOfMemoryError`` from now on when live bytes would exceed it; 0: none."""
        self._library.zerogate_set_budget(self._number, size_bytes)

    def ooms(self) -> int:
        """Return how often an allocation failed because of the budget."""
        return int(self._library.zerogate_ooms(self._number))


class NativeLibrary:
    """The loaded device: its pools of memory, and counts of what crosses between host and device.

    From now on every byte that torch allocates in this process is counted.
    """

    def __init__(self, path: Path, *, devices: int) -> None:
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise LibraryUnavailableError(
                f"cpu tier: {path} does not load ({error}); expected the emulated device; remove the "
                "file to rebuild it"
            ) from error
        counters = "live_bytes", "peak_bytes", "ooms", "bytes_to_device", "bytes_to_host", "waits"
        for name in counters:
            getattr(self._library, f"zerogate_{name}").restype = ctypes.c_int64
        self._library.zerogate_set_budget.argtypes = [ctypes.c_int, ctypes.c_int64]
        self._library.zerogate_install(devices)
        self.device, self.host, self.pinned = (Pool(self._library, number) for number in range(3))

    def bytes_to_device(self) -> int:
        """Return the bytes that were copied from host to device so far."""
        return int(self._library.zerogate_bytes_to_device())

    def bytes_to_host(self) -> int:
        """Return the bytes that were copied from device to host so far."""
        return int(self._library.zerogate_bytes_to_host())

    def waits(self) -> int:
        """Return how often the host has waited for the device so far, as it would for a card."""
        return int(self._library.zerogate_waits())
