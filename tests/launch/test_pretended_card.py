"""The gpu tier from command to verdict, on a device that is none: in ranks ``pretended_card``, in the
controller an NVML that tells of the ranks' processes. What lies between is the real thing.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.launch.conftest import TOY, KeptForkserver, kept_forkserver
from tests.launch.pretended_card import CONTEXT_BYTES, KERNEL_BYTES, NAME, TOTAL_BYTES, UUID
from tests.made_nvml import MadeNVML
from zerogate.devices import cards
from zerogate.session import rank_setup
from zerogate.session.batch_size import LARGEST
from zerogate.session.judge import judge
from zerogate.session.record_baselines import record_baselines

CELL = dataclasses.replace(TOY, strategy="zero1", tier="gpu")
PRELOAD = (f"{Path(__file__).parent / 'pretended_card.py'}::pretend",)
BUDGET = 1_015_000_000 + CONTEXT_BYTES
"""Of the whole process. DeepSpeed's reduce bucket takes 1e9 of it: full-size settings."""
RANK_BYTES = 3 * 2**30
"""Of each rank's process, as NVML has it: more than its allocator ever reserves."""


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
        """The ranks' are the children of the fork server, which has no context of its own."""
        ranks = {
            child.pid: RANK_BYTES + self.more
            for server in psutil.Process().children()
            for child in server.children()
        }
        return ranks | self.other_processes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptForkserver]:
    """A fork server of the gpu tier's own, in place of torchrun."""
    yield from kept_forkserver(tmp_path_factory)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    found = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", found)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(rank_setup, "cuda_lacks", lambda environment: "")  # torch sees no device.
    cards._query_driver.cache_clear()
    yield found
    cards._query_driver.cache_clear()


@pytest.fixture
def session(launches, server, driver):
    return partial(
        launches.session,
        "torchrun",
        around=lambda launcher: server,
        share_device=True,
        preload=PRELOAD,
    )


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
