"""A process that ranks for cards may be forked from, by a folder as /proc has it and a made NVML."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a process with one thread, whose standard input is open."""
    import torch

    # It is true here if torch is built for CUDA and there is no driver to count devices by.
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: False)
    (tmp_path / "fd").mkdir()
    (tmp_path / "fd" / "0").symlink_to("/dev/null")
    add_thread(tmp_path, threading.main_thread().native_id, "python")
    return tmp_path


def add_thread(process: Path, number: int | None, name: str) -> None:
    folder = process / "task" / str(number)
    folder.mkdir(parents=True)
    (folder / "comm").write_text(f"{name}\n")


def hazard(process: Path) -> str:
    # Only ranks import torch; importing it is slow.
    from zerogate.worker.fork_hazards import fork_hazard

    return fork_hazard(process)


def test_process_that_touched_no_card_is_no_hazard(process: Path) -> None:
    (process / "fd" / "9").symlink_to("/dev/nvidiactl")  # NVML opens it.
    add_thread(process, 2**22, "jemalloc_bg_thd")
    assert hazard(process) == ""


def test_context_of_torch_is_hazard(process: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert hazard(process) == "torch has a CUDA context, which does not survive a fork"


def test_bad_fork_of_torch_is_hazard(process: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    assert hazard(process).startswith("torch has called the CUDA driver")


def test_driver_called_past_torch_is_hazard(process: Path) -> None:
    (process / "fd" / "9").symlink_to("/dev/nvidia-uvm")
    assert hazard(process).startswith(
        "a library has called the CUDA driver (/dev/nvidia-uvm is open)"
    )


def test_other_threads_are_hazard_by_name(process: Path) -> None:
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait, name="monitor")
    thread.start()
    add_thread(process, thread.native_id, "python")
    add_thread(process, 2**22, "cuda-EvtHandlr")
    found = hazard(process)
    go_on.set()
    thread.join()
    assert found.endswith("a fork ends them: cuda-EvtHandlr, monitor")


class CountingNVML(SimpleNamespace):
    """NVML as a library that counts how often it was opened; closing it too often is no error."""

    NVMLError = pynvml.NVMLError
    opened = 0

    def nvmlInit(self) -> None:
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened = max(0, self.opened - 1)

    def nvmlSystemGetDriverVersion(self) -> str:
        if not self.opened:
            raise self.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)
        return "580.1"


@pytest.mark.parametrize("opened", [0, 3])
def test_nvml_is_closed_in_server_and_opened_in_rank(
    monkeypatch: pytest.MonkeyPatch, opened: int
) -> None:
    from zerogate.worker.fork_hazards import close_nvml, open_nvml

    library = CountingNVML(opened=opened)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert close_nvml()
    assert library.opened == 0
    open_nvml()
    assert library.opened == 1


def test_nvml_without_driver_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    from zerogate.worker.fork_hazards import close_nvml

    def init() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setitem(
        sys.modules, "pynvml", SimpleNamespace(nvmlInit=init, NVMLError=pynvml.NVMLError)
    )
    assert not close_nvml()
