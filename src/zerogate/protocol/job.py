"""The file that the controller sends to the ranks of a launch: the job. Standard library only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zerogate.protocol.cell import Cell
from zerogate.protocol.record import SCHEMA_VERSION

Purpose = Literal["training", "probe"]
BatchKind = Literal["train", "eval"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRequest:
    """Batch sizes of training or evaluation (``kind``) to try in one process group.

    It tries ``sizes`` in that order, then ever larger ones below ``stop`` until one runs out of memory.
    """

    kind: BatchKind
    sizes: tuple[int, ...]
    stop: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Request of the controller for a launch; every rank reads the same file.

    ``run`` is the same for all launches of a run, also of one that was interrupted and resumed.
    Paths are absolute. ``requested`` is the configuration that ranks must find applied, ``ops`` the
    compiled DeepSpeed ops that they load. ``learning_rate``, ``micro_batch_size`` and
    ``gradient_accumulation_steps`` replace the recipe's values if given. With ``steps``, training
    stops after that many steps and there is no evaluation. ``preload`` are functions that a rank calls
    first, ``FILE.py::NAME``: the faults that the project's own tests plant. ``device_memory_bytes`` is
    what a full-size cell may use on each rank's device; a scale model gets its share of it.
    ``precision`` is the mixed precision that the machine forces; None to keep the file's.
    ``shared_devices`` is the number of devices that more ranks share; 0 if each rank has its own.
    ``weights_folder`` is the cache of initial weights; None to draw them in every launch.
    """

    run: str
    launch_id: str
    purpose: Purpose
    cell: Cell
    config_file: str
    requested: dict[str, Any]
    ops: tuple[str, ...]
    precision: str | None
    workload_file: str
    data_folder: str
    data_origin: Literal["generated", "real"]
    scratch_folder: str
    record_folder: str
    root_folder: str
    controller_pid: int
    seed: int = 25
    learning_rate: float | None = None
    micro_batch_size: int | None = None
    gradient_accumulation_steps: int | None = None
    steps: int | None = None
    preload: tuple[str, ...] = ()
    probe: ProbeRequest | None = None
    device_memory_bytes: int | None = None
    shared_devices: int = 0
    weights_folder: str | None = None
    schema_version: int = SCHEMA_VERSION


def job_path(folder: Path) -> Path:
    return folder / "job.json"


def read_job(path: Path) -> Job:
    """Return the controller's job, not validated: both sides are the same release."""
    values = json.loads(path.read_text())
    values["cell"] = Cell(**values["cell"])
    values["ops"], values["preload"] = tuple(values["ops"]), tuple(values["preload"])
    if values["probe"] is not None:
        values["probe"] = ProbeRequest(**values["probe"])
    return Job(**values)
