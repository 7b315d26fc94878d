"""The gpu tier from command to verdict, on a device that is none: in ranks ``pretended_card``, in the
controller an NVML that tells of the ranks' processes. What lies between is the real thing.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.launch.conftest import TOY, KeptForkserver, kept_forkserver
from tests.launch.pretended_card import CONTEXT_BYTES, KERNEL_BYTES, NAME, TOTAL_BYTES, UUID
from tests.made_nvml import MadeNVML
from zerogate.devices import cards
from zerogate.launch.forkserver import ForkserverLauncher
from zerogate.launch.launcher import Launcher
from zerogate.metrics.table import METRICS
from zerogate.session import rank_setup
from zerogate.session.batch_size import LARGEST
from zerogate.session.judge import judge
from zerogate.session.progress import ProgressUpdate
from zerogate.session.record_baselines import record_baselines
from zerogate.session.runner import JobChanges
from zerogate.worker.cuda_memory import GROWTH_BYTES

CELL = dataclasses.replace(TOY, strategy="zero1", tier="gpu")
PRELOAD = (f"{Path(__file__).parent / 'pretended_card.py'}::pretend",)
BUDGET = 1_015_000_000 + CONTEXT_BYTES + GROWTH_BYTES
"""Of the whole process. DeepSpeed's reduce bucket takes 1e9 of it: full-size settings."""
RANK_BYTES = 3 * 2**30
"""Of each rank's process, as NVML has it: more than its allocator ever reserves."""


DIFFERENT = {"peak_host_bytes"} | {name for name, metric in METRICS.items() if metric.is_speed}
"""What two launches of one cell need not share: seconds, and the pages that a fork inherits."""


class Driver(MadeNVML):
    """NVML in the controller: one device, and on it the ranks that run now."""

    uuids = (f"GPU-{UUID}",)
    name = NAME
    total_bytes = TOTAL_BYTES

    def __init__(self) -> None:
        super().__init__()
        self.other_processes: dict[int, int] = {}
        self.more = 0

    def processes(self, uuid: str) -> dict[int, int]:
        """The ranks are the children of what was launched; each leads a process group of its own."""
        ranks = {}
        for server in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):  # It ends while this is read.
                pids = [child.pid for child in server.children()]
                ranks |= dict.fromkeys(filter(_leads_group, pids), RANK_BYTES + self.more)
        return ranks | self.other_processes


def _leads_group(pid: int) -> bool:
    with suppress(ProcessLookupError):
        return os.getpgid(pid) == pid
    return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptForkserver]:
    """A fork server of the gpu tier's own: the cpu tier's has another environment."""
    yield from kept_forkserver(tmp_path_factory)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    found = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", found)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")  # DeepSpeed computes on what there is.
    monkeypatch.setattr(rank_setup, "cuda_lacks", lambda environment: "")  # torch sees no device.
    cards._query_driver.cache_clear()
    yield found
    cards._query_driver.cache_clear()


@pytest.fixture
def session(launches, server, driver):
    """A session as a user's: with the default launcher, which is not replaced."""

    def around(launcher: Launcher) -> Launcher:
        return server if launcher.name == "forkserver" else launcher

    return partial(launches.session, around=around, share_device=True, preload=PRELOAD)


def statuses(session, *names: str) -> dict[str, str]:
    """Of every metric measured, or of those named."""
    names = names or session.ensure_measured(CELL).names
    return {name: judge(session, CELL, name).status for name in names}


def test_shared_device_cell_passes_own_baseline_until_memory_grows(session, driver):
    first = session(repeats=3)
    assert first.setup.unavailable(CELL) == ""
    found = first.measure(CELL)
    assert found.settings["topology"] == "shared_device"
    assert found.settings["dtype"] == "bfloat16"
    assert found.value("peak_device_bytes") == RANK_BYTES
    written, left = record_baselines(first, "the first on this card")
    assert [path.parent.name for path in written] == ["nvidia-pretended-8g-x1-shared"]
    assert left == {}

    again = session()
    again.measure(CELL)
    told = statuses(again)
    assert {"peak_requested_bytes", "peak_reserved_bytes", "allocator_retries"} <= set(told)
    assert told["epoch_seconds"] == "invalid", "ranks that share take turns"
    assert told.pop("loss_left") == "not_comparable", "generated data teach full size nothing"
    assert set(told.values()) <= {"ok", "improved", "invalid"}, told

    driver.more = 256 * 2**20
    planted = session()
    planted.measure(CELL)
    names = ("peak_device_bytes", "peak_allocated_bytes", "loss")
    assert statuses(planted, *names) == dict(zip(names, ("regressed", "ok", "ok"), strict=True))


def test_batch_size_on_device_is_found_and_other_process_named(session, driver):
    driver.other_processes[77] = 2**30
    found = session(device_memory_bytes=BUDGET).batch_size(CELL, "train")
    assert 1 < found.size < LARGEST
    assert found.budget_bytes == BUDGET
    # One more sample does not fit, and context and kernels count.
    assert found.headroom_bytes is not None
    assert (
        BUDGET - found.headroom_bytes + CONTEXT_BYTES + KERNEL_BYTES
        <= found.process_bytes
        <= BUDGET
    )
    assert found.other_processes == (77,)
    assert "rank 0: process 77 was on the device too" in found.device_events


def skip_without_driver(told: list[str]) -> None:
    """Skip where a fork server cannot be had, whatever is pretended."""
    if any("torch has called the CUDA driver" in text for text in told):
        pytest.skip(
            "torch is built for CUDA and finds no NVML, so it counts devices by the driver, and the "
            "fork server refuses; run this with the CPU build of torch"
        )


def test_forked_and_torchrun_ranks_give_equal_records(session):
    found = {}
    for launcher in ("forkserver", "torchrun"):
        updates: list[ProgressUpdate] = []
        measured = session(launcher, progress=updates.append).measure(CELL)
        told = [update.text for update in updates]
        skip_without_driver(told)
        assert not [text for text in told if "torchrun" in text]
        names = [name for name in measured.names if name not in DIFFERENT]
        found[launcher] = {name: measured.value(name) for name in names}
        found[launcher] |= measured.settings
    assert {"loss", "peak_device_bytes", "peak_requested_bytes", "topology"} <= set(
        found["torchrun"]
    )
    assert found["forkserver"] == found["torchrun"]


CONTEXT = "torch has a CUDA context, which does not survive a fork"
PRELOADED = {
    "context at import": ("import torch; torch.cuda.is_initialized = lambda: True", CONTEXT),
    "context with ops": (
        """
import torch
from zerogate.worker import ops
ops.load = lambda names, folder: setattr(torch.cuda, "is_initialized", lambda: True)
""",
        CONTEXT,
    ),
    "exit": ("import os; os._exit(3)", "it has ended (exit code 3)"),
}
"""What a module that the fork server imports does, and what is said of it."""


@pytest.mark.parametrize("what", PRELOADED)
def test_card_cell_with_unusable_fork_server_is_launched_by_torchrun(
    launches, driver, tmp_path, monkeypatch, what
):
    code, why = PRELOADED[what]
    (tmp_path / "sacrebleu.py").write_text(code)  # This workload's ranks do not import it.
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(ForkserverLauncher, "launch", counted := Counted(ForkserverLauncher.launch))
    told = []

    def around(launcher: Launcher) -> Launcher:
        return ForkserverLauncher(tmp_path) if launcher.name == "forkserver" else launcher

    session = launches.session(
        around=around, share_device=True, progress=lambda update: told.append(update.text)
    )
    launched = 2 if what == "context with ops" else 1
    for index in range(launched):
        changes = JobChanges(steps=2, preload=PRELOAD)
        found = session.runner.launch_variant(CELL, f"variant-{index}", changes)
        assert [record.outcome for record in found.ranks] == ["ok", "ok"]
    skip_without_driver(told)
    said = [text for text in told if "torchrun" in text]
    assert len(said) == 1, "decided, and told, once in a session"
    assert said[0].startswith(f"fork server: {why}")
    assert said[0].endswith("; torchrun starts the ranks instead")
    assert counted.calls == 1


class Counted:
    """A method that counts its calls."""

    def __init__(self, method):
        self._method = method
        self.calls = 0

    def __get__(self, instance, owner):
        def call(*arguments):
            self.calls += 1
            return self._method(instance, *arguments)

        return call
