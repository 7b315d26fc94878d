"""A project in miniature, whose launches are answered from values instead of being run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]

CONFTEST = """
import json
from pathlib import Path

import pytest

import zerogate.session.rank_setup
from zerogate.devices.nvml import read_launch_readings, readings_path
from zerogate.launch.errors import OutOfMemoryError, RankCrashedError
from zerogate.protocol.atomic_write import write_json
from zerogate.environment.overlay import Overlay
from zerogate.protocol.record import (
    COLLECTIVES, Collective, Crossings, Device, Failure, HostMemory, PhaseMemory, Probed, RankRecord,
    Recipe, Traced
)

HERE = Path(__file__).parent


def probe(job, fits, folder, nvml):
    # Ranks on a device for so many samples; what the first of them writes, and NVML beside it.
    tried, sizes = [], list(job.probe.sizes)
    device = None
    if nvml is not None:
        device = Device(uuid="a", pid=1, peak_reserved_bytes=1)
        write_json(readings_path(folder), {"origin": "hand-made", "devices": {"GPU-a": nvml}})
    values = dict(
        schema_version=2, launch_id=job.launch_id, rank=0, world_size=2, workload_version=1,
        data_origin=job.data_origin, parameters=3_000_000, applied={"dtype": "float32"},
        recipe=Recipe(micro_batch_size=4, eval_micro_batch_size=4, epochs=1, learning_rate=0.1,
                      warmup_steps=1),
        quality_better={"accuracy": "higher"}, quality_learned={"accuracy": 0.8},
        budget_bytes=job.device_memory_bytes // 1000, canary_seconds=0.004, device=device,
        memory_source="emulated" if job.cell.tier == "cpu" else "cuda_allocator",
    )
    while sizes:
        size = sizes.pop(0)
        if size > fits:
            error = OutOfMemoryError(f"{job.cell.id}: out of memory")
            readings = read_launch_readings(folder)
            error.devices = readings.devices if readings else None
            error.record = RankRecord(
                **values, outcome="oom", probed=tuple(tried), probing=size,
                failure=Failure(at=0.0, phase="probe", type="OutOfMemoryError",
                                message="Tried to allocate 5 bytes", traceback=""))
            raise error
        tried.append(Probed(size=size, peak_allocated_bytes=100 + 10 * size,
                            forward_bytes=50 + 10 * size, step_seconds=(1.0, 0.5, 0.5)))
        if not sizes and job.probe.stop is not None and size + 1 < job.probe.stop:
            sizes.append(size + 1)
    return (RankRecord(**values, outcome="ok", probed=tuple(tried)),)


def lay_over(packages, cache, progress):
    name, _, version = packages[0].partition("==")
    return Overlay(Path(cache), {name: version})


# Building one takes pip and an import of the stack; tests/unit/test_overlay.py does.
zerogate.session.rank_setup.lay_over = lay_over


@pytest.hookimpl(tryfirst=True)
def pytest_zerogate_launch(job, folder):
    # Of the other environment: what is measured against.
    other = "@other" if "against" in folder.parts else ""
    with (HERE / "launches.txt").open("a") as log:
        log.write(job.cell.id + other + "\\n")
    change = json.loads((HERE / "change.json").read_text()).get(job.cell.strategy + other, {})
    if job.purpose == "probe" and "crash" in change:
        raise RankCrashedError(change["crash"])
    if job.purpose == "probe":
        return probe(job, change.get("fits", 5), folder, change.get("nvml"))
    if "crash" in change or change.get("crash_in_launch") == int(folder.name):
        raise RankCrashedError(change.get("crash", "boom"), detail="Traceback: boom", log="rank1.log",
                               command="pytest -m cpu")
    # One number, or one for each launch of the cell.
    seconds = change.get("seconds", 2.0)
    if isinstance(seconds, list):
        seconds = seconds[int(folder.name)]
    memory = PhaseMemory(
        peak_allocated_bytes=change.get("peak", 1000), live_bytes=change.get("live", 500),
        host=HostMemory(peak_bytes=80, live_bytes=60, peak_pinned_bytes=40,
                        pinned_bytes=change.get("pinned", 20)),
    )
    return tuple(
        RankRecord(
            schema_version=2, launch_id=job.launch_id, rank=rank, world_size=2, outcome="ok",
            environment={"torch": "2.13.0"}, applied={"dtype": "float32"},
            workload_version=change.get("version", 1), data_origin=job.data_origin,
            parameters=3_000_000,
            recipe=Recipe(micro_batch_size=4, eval_micro_batch_size=4, epochs=1,
                          learning_rate=0.1, warmup_steps=1),
            quality_better={"accuracy": "higher"}, quality_learned={"accuracy": 0.8},
            loss=tuple(change.get("loss", (3.0, 2.0, 1.0, 0.5))),
            gradient_norm=tuple(change.get("norm", (4.0, 3.0, 2.0, 1.0))),
            learning_rate=(0.0, 0.0, 0.05, 0.1), step_seconds=(seconds / 4,) * 4, step_samples=(4,) * 4,
            train_seconds=(seconds,), eval_seconds=0.5,
            setup_seconds=1.0, canary_seconds=0.004,
            memory={name: memory for name in ("init", "first_step", "steady", "eval")},
            traced=Traced(
                collectives=dict.fromkeys(COLLECTIVES, Collective(calls=1, payload_bytes=40)),
                operators=100, flops=5000, disk_read_bytes=0, disk_written_bytes=0,
                model_state_bytes={"ddp": 500}.get(job.cell.strategy, 400),
                crossings=Crossings(host_state_bytes=60, copied_to_device_bytes=16,
                                    copied_to_host_bytes=change.get("copied", 4), host_waits=3),
            ),
            memory_source="emulated", peak_host_bytes=10**9,
            quality={"accuracy": change.get("accuracy", 0.9)},
        )
        for rank in range(2)
    )
"""


class Project:
    """A pytester directory with two strategies, one workload and the suite's own tests."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path
        (self.path / "configs").mkdir()
        for name in ("ddp", "zero2"):
            text = (ROOT / "configs" / f"{name}.yaml").read_text()
            (self.path / "configs" / f"{name}.yaml").write_text(text)
        (self.path / "workloads").mkdir()
        # Never imported by the controller: it would fail.
        (self.path / "workloads" / "tiny_words.py").write_text("raise SystemExit('imported')\n")
        suite = self.path / "claims"
        suite.mkdir(parents=True)
        for path in (ROOT / "src" / "zerogate" / "suite").glob("test_*.py"):
            (suite / path.name).write_text(path.read_text())
        pytester.makeini("[pytest]\ntestpaths = claims\naddopts = --strict-markers -rfEs\n")
        pytester.makeconftest(CONFTEST)
        self.change({})

    def change(self, by_strategy: dict[str, dict[str, Any]]) -> None:
        """What launches measure from now on, other than usual, by strategy."""
        (self.path / "change.json").write_text(json.dumps(by_strategy))

    def run(self, *arguments: str) -> pytest.RunResult:
        """The suite on the cpu tier, without batch sizes unless ``-m`` asks for them."""
        return self.pytester.runpytest_subprocess("-m", "cpu", "-p", "no:cacheprovider", *arguments)

    def record(self, *arguments: str) -> pytest.RunResult:
        return self.run("--update-baselines", "--reason", "first", *arguments)

    @property
    def baselines(self) -> Path:
        return self.path / "baselines" / "cpu-gloo" / "tiny_words.json"

    @property
    def launches(self) -> list[str]:
        return (self.path / "launches.txt").read_text().split()

    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            (self.path / "zerogate-report" / "results.json").read_text()
        )
        return found


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    # There pytest repeats whole messages in its summary.
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    # What is compiled for ranks is not needed, and must not be built.
    monkeypatch.setenv("XDG_CACHE_HOME", str(pytester.path / "cache"))
    from zerogate.devices.host import native_folder
    from zerogate.environment.compiled_ops import sources_of

    folder = native_folder(pytester.path / "cache" / "zerogate")
    folder.mkdir(parents=True)
    (folder / ".emulated_device-built").write_text(sources_of("emulated_device"))
    return Project(pytester)
