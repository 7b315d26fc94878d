"""More ranks than devices: who runs where, under which budget, and what is said of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from records import PROVENANCE, a_cell, a_job, a_measurement, a_memory, a_record

from zerogate.config.options import Options
from zerogate.devices import assignment, cards
from zerogate.devices.cards import Card
from zerogate.launch.deadlines import deadlines
from zerogate.metrics.device_use import LaunchRecords
from zerogate.protocol.job import Job
from zerogate.session import rank_setup, runner
from zerogate.session.judge import judge
from zerogate.session.rank_setup import RankSetup
from zerogate.session.session import Session
from zerogate.verdicts.baselines import of_measurement, with_speedup
from zerogate.worker.main import share_device

ROOT = Path(__file__).parents[2]
CELL = replace(a_cell(), tier="gpu")
Sessions = Callable[..., Session]


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sessions:
    """A session on a machine with so many cards; its jobs are kept in ``launched``."""

    def session(
        number: int, *, share: bool, memory: int | None = None, torch_lacks: str = ""
    ) -> Session:
        found = tuple(Card("NVIDIA H200", f"GPU-{index}", 141 * 2**30) for index in range(number))
        monkeypatch.setattr(assignment, "cuda_devices", lambda: found)
        monkeypatch.setattr(cards, "cuda_devices", lambda: found)
        monkeypatch.setattr(rank_setup, "cuda_lacks", lambda environment: torch_lacks)
        asked = Options(
            root=ROOT, report_folder=tmp_path, cache_folder=tmp_path, launcher="torchrun",
            device_memory_bytes=memory, share_device=share,
        )  # fmt: skip
        return Session(asked, launchers={})

    return session


def job_of(session: Session) -> Job:
    """What its ranks are told."""
    launched: list[Job] = []

    def keep(job: Job, folder: Path) -> None:
        launched.append(job)
        raise InterruptedError

    cells = runner.Runner(
        RankSetup(session.options, lambda update: None),
        launchers={},
        launch_hook=keep,
        deadlines=lambda cell: deadlines("gpu"),
    )
    with pytest.raises(InterruptedError):
        cells.launch(CELL, 0, 1)
    return launched[0]


@pytest.mark.parametrize(
    ("number", "share", "why"),
    [
        pytest.param(0, False, "needs 2 CUDA devices, found 0", id="none"),
        pytest.param(0, True, "needs 1 CUDA device, found 0", id="none to share"),
        pytest.param(
            1, False, "needs 2 CUDA devices, found 1; --share-device lets ranks share", id="one"
        ),
        pytest.param(1, True, "", id="one to share"),
        pytest.param(2, True, "", id="enough"),
    ],
)
def test_cell_with_too_few_devices_is_unavailable(
    session: Sessions, number: int, share: bool, why: str
) -> None:
    assert session(number, share=share).setup.unavailable(CELL) == why


def test_cell_with_torch_that_sees_no_device_is_unavailable(
    session: Sessions,
) -> None:
    lacks = "torch (CUDA 13.0) sees no device; install another"
    assert session(2, share=False, torch_lacks=lacks).setup.unavailable(CELL) == lacks


@pytest.mark.parametrize(
    ("metric", "changes"),
    [("peak_allocated_bytes", {"memory": a_memory(10**9)}), ("loss", {"loss": (9.0,) * 6})],
)
def test_gpu_regression_of_one_launch_is_measured_again(
    session: Sessions, monkeypatch: pytest.MonkeyPatch, metric: str, changes: dict[str, Any]
) -> None:
    found = session(2, share=False)
    recorded = of_measurement(a_measurement(CELL, launches=3), PROVENANCE)
    monkeypatch.setattr(found, "baseline", lambda cell: recorded)
    launches = [a_record(rank) for rank in (0, 1)]
    monkeypatch.setattr(
        found.runner, "launch", lambda cell, index, of: LaunchRecords(ranks=tuple(launches))
    )
    found.measurements[CELL] = a_measurement(CELL, **changes)
    assert judge(found, CELL, metric).status == "ok"
    assert len(found.measurements[CELL].launches) == 3
    launches = [a_record(rank, **changes) for rank in (0, 1)]
    found.measurements[CELL] = a_measurement(CELL, **changes)
    assert judge(found, CELL, metric).status == "regressed"


def test_speedup_over_throttled_ddp_is_invalid(
    session: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = session(2, share=False)
    recorded = of_measurement(a_measurement(CELL, launches=3), PROVENANCE)
    recorded = with_speedup(recorded, "speedup_over_ddp", (1.0,) * 3)
    provenance = replace(recorded.provenance, hardware=found.hardware(CELL))
    monkeypatch.setattr(found, "baseline", lambda cell: replace(recorded, provenance=provenance))
    hot = ("rank 0: it was throttled", "rank 1: it was throttled")
    slow = {"train_seconds": (5.0, 5.0)}
    found.measurements[CELL] = a_measurement(CELL, **slow)
    found.measurements[CELL.reference] = a_measurement(CELL.reference, device_events=hot, **slow)
    verdict = judge(found, CELL, "speedup_over_ddp")
    assert (verdict.status, verdict.note) == (
        "invalid",
        "DDP: seconds not judged: rank 0: it was throttled; rank 1: it was throttled",
    )


def test_job_on_shared_device_has_memory_budget(session: Sessions) -> None:
    job = job_of(session(1, share=True, memory=24 * 2**30))
    assert (job.shared_devices, job.device_memory_bytes) == (1, 24 * 2**30)


def test_job_with_device_per_rank_has_no_memory_budget(session: Sessions) -> None:
    job = job_of(session(2, share=True, memory=24 * 2**30))
    assert (job.shared_devices, job.device_memory_bytes) == (0, None)


@pytest.mark.parametrize(
    ("number", "key"), [(1, "nvidia-h200-141g-x1-shared"), (2, "nvidia-h200-141g-x2")]
)
def test_baselines_of_shared_device_have_own_hardware_key(
    session: Sessions, number: int, key: str
) -> None:
    found = session(number, share=True)
    assert found.hardware(CELL) == key
    assert found.baseline_path(CELL).parent.name == key


@pytest.mark.parametrize(
    ("devices", "local", "expected"), [(0, 1, "1"), (1, 1, "0"), (2, 3, "1"), (2, 0, "0")]
)
def test_share_device_sets_local_rank_and_nccl_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: int, local: int, expected: str
) -> None:
    monkeypatch.setenv("LOCAL_RANK", str(local))
    for name in ("NCCL_MULTI_RANK_GPU_ENABLE", "NCCL_MAX_CTAS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    share_device(replace(a_job(tmp_path), shared_devices=devices))
    assert os.environ["LOCAL_RANK"] == expected
    assert ("NCCL_MULTI_RANK_GPU_ENABLE" in os.environ) == (devices > 0)


@pytest.mark.parametrize(
    ("size", "used", "reserved", "share"),
    [
        pytest.param(24, 0, [0], 0.24, id="nothing yet"),
        pytest.param(24, 4, [2], 0.22, id="a context"),
        pytest.param(24, 4, [0, 0], 0.22, id="two contexts"),
        pytest.param(24, 14, [6, 4], 0.22, id="two contexts and what they hold"),
        pytest.param(24, 60, [0], 0.0, id="no room at all"),
        pytest.param(300, 0, [0], 1.0, id="more than the card"),
        pytest.param(24, 2, [4], 0.24, id="less used than reserved: asked at different moments"),
    ],
)
def test_budget_share_excludes_memory_outside_allocators(
    size: int, used: int, reserved: list[int], share: float
) -> None:
    # Only ranks import torch; importing it is slow.
    from zerogate.worker.cuda_memory import budget_share, outside_bytes

    found = budget_share(size, outside=outside_bytes(used, reserved), total=100)
    assert found == pytest.approx(share)


def test_gpu_job_names_cache_of_initial_weights(session: Sessions, tmp_path: Path) -> None:
    assert job_of(session(2, share=False)).weights_folder == str(tmp_path / "initial-weights")
