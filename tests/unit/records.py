"""Values that the tests judge: each is whole and valid, and a test names only what matters to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zerogate.devices.nvml import DeviceReadings
from zerogate.metrics.device_use import LaunchRecords
from zerogate.metrics.measurement import Measurement, measure
from zerogate.protocol.cell import Cell
from zerogate.protocol.job import Job
from zerogate.protocol.record import (
    COLLECTIVES,
    SCHEMA_VERSION,
    Collective,
    Crossings,
    Failure,
    HostMemory,
    Phase,
    PhaseMemory,
    RankRecord,
    Recipe,
    Traced,
)
from zerogate.verdicts.baselines import Provenance

RECIPE = Recipe(
    micro_batch_size=8, eval_micro_batch_size=16, epochs=2, learning_rate=2e-5, warmup_steps=2
)
PHASES: tuple[Phase, ...] = ("init", "first_step", "steady", "eval")


def a_cell(strategy: str = "zero2", **changes: Any) -> Cell:
    return Cell(
        **{"workload": "deberta_mrpc", "strategy": strategy, "world_size": 2, "tier": "cpu"}
        | changes
    )


def a_memory(peak: int = 1000, **peaks: int) -> dict[Phase, PhaseMemory]:
    """``peak`` bytes in every phase but those named; half of it is live."""
    return {
        phase: PhaseMemory(
            peak_allocated_bytes=peaks.get(phase, peak),
            live_bytes=peaks.get(phase, peak) // 2,
            host=a_host(),
        )
        for phase in PHASES
    }


def a_host(**changes: int) -> HostMemory:
    """What torch holds on the host of a rank whose device is emulated."""
    values = {"peak_bytes": 80, "live_bytes": 60, "peak_pinned_bytes": 40, "pinned_bytes": 20}
    return HostMemory(**(values | changes))


def a_crossing(**changes: int) -> Crossings:
    """What crossed between host and device in the step of ``a_trace``."""
    values = {
        "host_state_bytes": 70,
        "copied_to_device_bytes": 16,
        "copied_to_host_bytes": 4,
        "host_waits": 3,
    }
    return Crossings(**(values | changes))


def a_trace(**changes: Any) -> Traced:
    """What one rank did in a step of two all-reduces and nothing else."""
    nothing = Collective(calls=0, payload_bytes=0)
    values = {
        "collectives": dict.fromkeys(COLLECTIVES, nothing)
        | {"all_reduce": Collective(calls=2, payload_bytes=400)},
        "operators": 100,
        "flops": 5000,
        "model_state_bytes": 900,
        "disk_read_bytes": 0,
        "disk_written_bytes": 0,
        "crossings": a_crossing(),
    }
    return Traced(**(values | changes))


def a_record(rank: int = 0, **changes: Any) -> RankRecord:
    """What one of two ranks writes after two epochs of three steps."""
    values: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "launch_id": "this launch",
        "rank": rank,
        "world_size": 2,
        "outcome": "ok",
        "environment": {"torch": "2.13.0"},
        "applied": {"dtype": "float32"},
        "workload_version": 1,
        "data_origin": "generated",
        "parameters": 1000,
        "recipe": RECIPE,
        "quality_better": {"f1": "higher"},
        "quality_learned": {"f1": 0.7},
        "loss": (0.7, 0.6, 0.5, 0.4, 0.3, 0.2),
        "gradient_norm": (3.0, 2.5, 2.0, 1.5, 1.0, 0.5),
        "learning_rate": (0.0, 0.0, 1e-5, 2e-5, 1e-5, 0.0),
        "step_seconds": (0.5, 0.1, 0.1, 0.1, 0.1, 0.1),
        "step_samples": (8,) * 6,
        "train_seconds": (0.5, 0.5),
        "eval_seconds": 0.2,
        "setup_seconds": 1.5,
        "canary_seconds": 0.01,
        "memory": a_memory(),
        "memory_source": "emulated",
        "peak_host_bytes": 5000,
        "step_live_bytes": (500,) * 6,
        "step_host_bytes": (80,) * 6,
        "traced": a_trace(),
        "quality": {"f1": 0.8},
    }
    return RankRecord(**(values | changes))


def a_failed_record(rank: int, *, outcome: str = "error", **failure: Any) -> RankRecord:
    values = {
        "at": 100.0,
        "phase": "train",
        "type": "RuntimeError",
        "message": "it broke\nat length",
        "traceback": "Traceback: …",
    }
    return RankRecord(
        schema_version=SCHEMA_VERSION,
        launch_id="this launch",
        rank=rank,
        world_size=2,
        outcome=outcome,  # type: ignore[arg-type]
        failure=Failure(**(values | failure)),
    )


def a_measurement(
    cell: Cell | None = None,
    launches: int = 1,
    *,
    device_events: tuple[str, ...] = (),
    **changes: Any,
) -> Measurement:
    """Of ``launches`` equal launches, in which both ranks wrote ``a_record(**changes)``."""
    found = measured(*[[a_record(rank, **changes) for rank in (0, 1)]] * launches, cell=cell)
    launched = tuple(replace(one, device_events=device_events) for one in found.launches)
    return replace(found, launches=launched)


def measured(
    *launches: Sequence[RankRecord],
    cell: Cell | None = None,
    devices: Mapping[str, DeviceReadings] | None = None,
) -> Measurement:
    found = [LaunchRecords(ranks=tuple(records), devices=devices) for records in launches]
    return measure(cell or a_cell(), found)


def a_job(folder: Path, cell: Cell | None = None) -> Job:
    """The job of ``a_record``'s launch, in ``folder``."""
    return Job(
        run="this run",
        launch_id="this launch",
        purpose="training",
        cell=cell or a_cell(),
        config_file=str(folder / "configs" / "zero2.yaml"),
        requested={},
        ops=(),
        precision=None,
        workload_file=str(folder / "workloads" / "deberta_mrpc.py"),
        data_folder=str(folder / "data"),
        data_origin="generated",
        scratch_folder=str(folder),
        record_folder=str(folder),
        root_folder=str(folder),
        controller_pid=1,
    )


PROVENANCE = Provenance(
    recorded="2026-01-31",
    commit="0123456789",
    reason='torch 2.13, "the new one"',
    hardware="amd-epyc-2c",
    canary_seconds=0.0101,
    software={"torch": "2.13.0"},
)
