"""``zerogate doctor``: reports what this machine can run, and what it lacks, with remedies."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs
from packaging.requirements import Requirement

from zerogate.config.project import Project
from zerogate.devices.capacity import full_parameters, host_bytes
from zerogate.devices.cards import cuda_devices, driver
from zerogate.devices.host import host_key, native_folder
from zerogate.devices.host_memory import available_memory_bytes, may_lock_bytes
from zerogate.environment.dependencies import unmet_below
from zerogate.environment.torch_cuda import INSTALL, TorchCuda, ask_torch, parse_answer
from zerogate.launch.stacks import py_spy
from zerogate.protocol.cell import TIERS, Tier
from zerogate.protocol.stack import SHARING_NCCL, installed_version
from zerogate.protocol.units import GIB

DISTRIBUTION = "pytest-zerogate"
CPU_RAM_BYTES = 4 * GIB
"""Twice what two ranks and the fork server take (a rank's is the baselines' ``peak_host_bytes``)."""

DISK_BYTES = 2 * GIB
"""Space for compiled ops and a run's records."""
SHARED_MEMORY_BYTES = 64 * 2**20

WIDTH = 80
INDENT = " " * 6

State = Literal["ok", "lacks", "warns"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding about one subject. ``for_tier`` is the tier that cannot run while the subject is
    lacking; None if only some cells, or only reports, need it.
    """

    subject: str
    state: State
    found: str
    remedy: str = ""
    for_tier: Tier | Literal["both"] | None = None


def examine() -> Iterator[Finding]:
    """Yield all findings, in the order in which a user needs them."""
    yield from _software()
    yield from _compiling()
    yield from _cuda()
    yield from _host()


def _software() -> Iterator[Finding]:
    yield Finding("python", "ok", platform.python_version())
    try:
        required = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        remedy = "pip install -e . in the project's folder"
        yield Finding(DISTRIBUTION, "lacks", "not installed", remedy, "both")
        return
    for text in required:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        remedy = f'pip install "{wanted}"'
        try:
            found = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(wanted.name, "lacks", "not installed", remedy, "both")
            continue
        if wanted.specifier.contains(found, prereleases=True):
            yield Finding(wanted.name, "ok", found)
        else:
            yield Finding(wanted.name, "lacks", f"{found}, not {wanted.specifier}", remedy, "both")
    for needing, wanted in unmet_below(DISTRIBUTION):
        version = installed_version(wanted.name) or "not installed"
        yield Finding(
            wanted.name, "warns", f"{version}; {needing} needs {wanted}", f'pip install "{wanted}"'
        )


def _compiling() -> Iterator[Finding]:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        yield Finding(
            "g++", "lacks", "not found; DeepSpeed's ops and the cpu tier's device need it",
            "apt install g++", "cpu",
        )  # fmt: skip
    else:
        yield Finding("g++", "ok", compiler)
    cache = Path(platformdirs.user_cache_dir("zerogate"))
    built = sorted(path.name[1:-6] for path in native_folder(cache).glob(".*-built"))
    yield Finding(
        "compiled ops",
        "ok",
        ", ".join(built) or "none yet; the first run takes 3 to 8 minutes more",
    )
    if compiler and not _compiles(compiler, "#include <libaio.h>"):
        yield Finding(
            "libaio", "warns", "header not found; disk offload cells (zero3_nvme) skip",
            "apt install libaio-dev",
        )  # fmt: skip
    elif compiler:
        yield Finding("libaio", "ok", "header found")


def _compiles(compiler: str, source: str) -> bool:
    command = [compiler, "-x", "c++", "-fsyntax-only", "-"]
    result = subprocess.run(command, input=source, text=True, capture_output=True, check=False)
    return result.returncode == 0


def _cuda() -> Iterator[Finding]:
    version, why = driver()
    if why:
        yield Finding(
            "NVIDIA driver", "lacks", f"NVML does not answer: {why}",
            "install the driver; in a container, start it with --gpus all", "gpu",
        )  # fmt: skip
        return
    yield Finding("NVIDIA driver", "ok", version)
    names = [card.name for card in cuda_devices()]
    if not names:
        yield Finding(
            "CUDA devices", "lacks", "none is visible", "check CUDA_VISIBLE_DEVICES", "gpu"
        )
    elif len(names) == 1:
        yield Finding(
            "CUDA devices", "warns", f"{names[0]}: cells of two ranks skip",
            "use --world-size 1 or --share-device, or a machine with two devices",
        )  # fmt: skip
    else:
        yield Finding("CUDA devices", "ok", ", ".join(names))
    yield from _torch_cuda(parse_answer(ask_torch()))


def _torch_cuda(found: TorchCuda | None) -> Iterator[Finding]:
    if found is None:
        yield Finding("torch and CUDA", "lacks", "torch cannot be imported", "reinstall it", "both")
        return
    if found.lacks:
        yield Finding("torch and CUDA", "lacks", found.lacks, INSTALL, "gpu")
        return
    yield Finding("torch and CUDA", "ok", f"CUDA {found.built_for}")
    shares = "ranks may share a device"
    if found.nccl < SHARING_NCCL:
        shares = "ranks that share a device use gloo (NCCL from 2.30 on)"
    yield Finding("NCCL", "ok", f"{'.'.join(map(str, found.nccl))}: {shares}")


def _host() -> Iterator[Finding]:
    yield Finding("CPU", "ok", f"{host_key()}: baselines of seconds have this key")
    memory = available_memory_bytes()
    yield _enough("memory", memory, CPU_RAM_BYTES, "close other programs", "both")
    yield from _offload_memory(memory)
    for name, folder in (
        ("disk, cache", Path(platformdirs.user_cache_dir("zerogate"))),
        ("disk, temporary", Path(tempfile.gettempdir())),
        ("disk, here", Path.cwd()),
    ):
        yield _disk(name, folder)
    yield _direct(Path.cwd())
    shared = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0
    if shared < SHARED_MEMORY_BYTES:
        yield Finding(
            "/dev/shm", "warns", f"{shared / 2**20:.0f} MiB free; NCCL between ranks needs 64",
            "docker run --shm-size=1g",
        )  # fmt: skip
    else:
        yield Finding("/dev/shm", "ok", f"{shared / GIB:.0f} GiB free")
    yield _memlock()
    yield _stacks()


def _offload_memory(available_bytes: int) -> Iterator[Finding]:
    """Yield a warning where the project's largest workload cannot be offloaded by two ranks."""
    project = Project(Path.cwd())
    files = [project.workload_file(name) for name in project.workload_names()]
    sizes = {path.stem: full_parameters(path) or 0 for path in files}
    if not sizes:
        return
    largest = max(sizes, key=lambda name: sizes[name])
    needed = host_bytes(sizes[largest], 2, zero_stage=3, optimizer=True, param=True)
    if available_bytes < needed:
        yield Finding(
            "memory", "warns",
            f"{available_bytes / GIB:.0f} GiB free: offload of full-size {largest} needs "
            f"{needed / GIB:.0f}",
            "use a machine with more memory for gpu cells with offload",
        )  # fmt: skip


def _enough(
    subject: str, found: int, needed: int, remedy: str, tier: Tier | Literal["both"] | None
) -> Finding:
    text = f"{found / GIB:.0f} GiB free"
    if found >= needed:
        return Finding(subject, "ok", text)
    return Finding(subject, "lacks", f"{text}; {needed / GIB:.0f} are needed", remedy, tier)


def _disk(name: str, folder: Path) -> Finding:
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    if not os.access(there, os.W_OK):
        return Finding(name, "lacks", f"{there} cannot be written", "make it writable", "both")
    return _enough(
        name, shutil.disk_usage(there).free, DISK_BYTES, f"free space in {there}", "both"
    )


def _direct(folder: Path) -> Finding:
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            os.close(os.open(file.name, os.O_RDWR | os.O_DIRECT))
    except OSError as error:
        return Finding(
            "O_DIRECT", "warns", f"refused in {folder}: {error.strerror}; disk offload cells fail",
            "keep --report-dir on a local file system",
        )  # fmt: skip
    return Finding("O_DIRECT", "ok", "supported by the file system here")


def _memlock() -> Finding:
    if (limit := may_lock_bytes()) is None:
        return Finding("memlock", "ok", "unlimited")
    return Finding(
        "memlock", "warns", f"{limit // 1024} KiB; full-size cells that offload to disk skip",
        "ulimit -l unlimited",
    )  # fmt: skip


def _stacks() -> Finding:
    if py_spy():
        return Finding("stacks of stuck ranks", "ok", "py-spy, else faulthandler")
    return Finding("stacks of stuck ranks", "ok", "faulthandler (py-spy also reads stopped ranks)")


def report(findings: list[Finding]) -> str:
    """Return a line for each finding, its remedy below, and what each tier can run or lacks."""
    lines = []
    for one in findings:
        lines += textwrap.wrap(
            f"{one.state:6}{one.subject}: {one.found}", WIDTH, subsequent_indent=INDENT
        )
        if one.state != "ok" and one.remedy:
            lines += textwrap.wrap(
                f"-> {one.remedy}", WIDTH, initial_indent=INDENT, subsequent_indent=INDENT + "   "
            )
    lines.append("")
    for tier in TIERS:
        missing = [one.subject for one in findings if blocks(one, tier)]
        can = f"cannot run: {', '.join(missing)}" if missing else "can run"
        lines += textwrap.wrap(f"{tier} tier: {can}", WIDTH, subsequent_indent=INDENT)
    return "\n".join(lines)


def blocks(finding: Finding, tier: Tier) -> bool:
    """Return whether ``tier`` cannot run because of ``finding``."""
    return finding.state == "lacks" and finding.for_tier in (tier, "both")
