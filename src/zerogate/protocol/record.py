"""The file that each rank sends back to the controller: its record.

Standard library only: ranks write records, and the controller reads them through pydantic, which
checks these same dataclasses strictly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

SCHEMA_VERSION = 2
"""Version of records. ``launch.record_file`` still reads version 1, which the controller filled in."""

Strict = dict[str, Any]
STRICT: Strict = {"extra": "forbid", "strict": True}

Outcome = Literal["ok", "oom", "error"]
PRETRAINED = "published"
"""The origin of pretrained weights, as records and baselines say it."""
PLAIN_ALLOCATOR = "expandable_segments:False"
"""Settings of CUDA's caching allocator if the user sets none: torch's default (docs/batch-size.md)."""
SHARED_DEVICE = "shared_device"
"""Topology of ranks that run together on one device."""
OTHER_COLLECTIVE = "other_collective"
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", OTHER_COLLECTIVE)
"""Kinds of collectives that are counted separately."""
Phase = Literal["init", "first_step", "steady", "eval"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Training settings of a workload at one tier; all strategies share them.

    Steps are optimizer steps. ``micro_batch_size`` is per rank. The learning rate rises linearly
    over ``warmup_steps`` and falls linearly to 0 (DeepSpeed's WarmupDecayLR, warmup_type linear).
    """

    __pydantic_config__: ClassVar[Strict] = STRICT

    micro_batch_size: int
    eval_micro_batch_size: int
    epochs: int
    learning_rate: float
    warmup_steps: int
    gradient_accumulation_steps: int = 1
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """A batch size that fit.

    ``peak_allocated_bytes`` is that of the rank that needed most, above what a rank holds before the
    model. ``forward_bytes`` is held after the forward pass: it grows with every sample from the first
    on, while the peak may be that of a bucket or of the optimizer step. ``step_seconds`` are those of
    each optimizer step (or of the evaluation). ``allocator_retries`` counts how often the allocator
    returned its cache to make room. ``limit_bytes`` is what the allocator could hold: the budget
    without what lies outside of it (0: not recorded). ``process_bytes`` is the peak of the process that
    held most of a card, allocator, context and libraries together; 0 on a CPU.
    """

    __pydantic_config__: ClassVar[Strict] = STRICT

    size: int
    peak_allocated_bytes: int
    forward_bytes: int
    step_seconds: tuple[float, ...]
    allocator_retries: int = 0
    limit_bytes: int = 0
    process_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """Calls of one kind of collective, and the bytes that this rank handed to them."""

    __pydantic_config__: ClassVar[Strict] = STRICT

    calls: int
    payload_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossings:
    """Counts of what crossed between host and device in one step; only the emulated device has them.

    ``host_waits`` counts how often the host waited for the device: it read a value, or it copied in a
    way that waits. ``host_state_bytes`` are model states on the host, pinned ones too, held when
    ``Traced.model_state_bytes`` are.
    """

    __pydantic_config__: ClassVar[Strict] = STRICT

    host_state_bytes: int
    copied_to_device_bytes: int
    copied_to_host_bytes: int
    host_waits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """Counts of what one rank did in one optimizer step, taken after the timed ones.

    ``operators`` are torch's, nested ones too. ``flops`` are those of matrix products, convolutions,
    additions and multiplications (``torch.profiler`` with flops). ``model_state_bytes`` is held
    between backward pass and optimizer step: parameters, gradients, optimizer states (ZeRO,
    arXiv 1910.02054, section 3.1) and the buffers that shard them.
    """

    __pydantic_config__: ClassVar[Strict] = STRICT

    collectives: dict[str, Collective]
    operators: int
    flops: int
    model_state_bytes: int
    disk_read_bytes: int
    disk_written_bytes: int
    crossings: Crossings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """Bytes that torch holds on the host in one phase of one rank: ordinary ones, and pinned ones."""

    __pydantic_config__: ClassVar[Strict] = STRICT

    peak_bytes: int
    live_bytes: int
    peak_pinned_bytes: int
    pinned_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseMemory:
    """Device memory of one rank in one phase, above what it held before the model was built.

    A card's allocator also reports the peaks of the bytes that were requested (``requested``), of
    blocks in use or waiting for a stream (``active``), and of the bytes it took from the driver
    (``reserved``): see torch.cuda.memory_stats. The emulated device has none of these: 0. Only there is
    known what torch holds on the ``host``.
    """

    __pydantic_config__: ClassVar[Strict] = STRICT

    peak_allocated_bytes: int
    live_bytes: int
    peak_requested_bytes: int = 0
    peak_active_bytes: int = 0
    peak_reserved_bytes: int = 0
    host: HostMemory | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """CUDA device that a rank ran on, and the peak that its allocator reserved there.

    ``allocator_retries`` counts how often the allocator returned its cache to make room,
    ``allocator_ooms`` how often that was not enough. ``pinned_bytes`` is the peak of pinned host
    memory. ``process_bytes`` is the peak of the whole process, as the rank learned it from NVML at the
    end of each phase; 0 if NVML does not list the process under the rank's pid. The controller's
    readings are stored beside the record; ``metrics.device_use`` joins the two.
    """

    __pydantic_config__: ClassVar[Strict] = STRICT

    uuid: str
    pid: int
    peak_reserved_bytes: int
    name: str = ""
    allocator_retries: int = 0
    allocator_ooms: int = 0
    pinned_bytes: int = 0
    process_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Error that ended a rank early, and the phase in which it did (set-up, train, eval).

    ``at`` is in seconds since the epoch: the rank that failed first has the cause, and its peers
    mostly report a lost connection.
    """

    __pydantic_config__: ClassVar[Strict] = STRICT

    at: float
    phase: str
    type: str
    message: str
    traceback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRecord:
    """Measurements of one rank, written atomically, also when it fails; a killed rank writes none.

    Per-step tuples have one entry per optimizer step: ``loss`` is this rank's mean over the step's
    micro-batches, ``gradient_norm`` the global norm before clipping (0 if loss scaling skipped the
    step), ``step_live_bytes`` the bytes held after the step, without data, and ``step_host_bytes`` what
    torch then holds on the host, where that is known. Per-epoch tuples have one entry per epoch.
    ``quality`` is rank 0's. ``applied`` is what the engine reports that it runs.
    Samples that no rank drew in an epoch are missed. Samples drawn again, beyond those that fill the
    last global batch, are repeated. A probe has ``probed``, the sizes that fit, and ``probing``, the
    one it tried last (0: none yet). ``topology`` is set if ranks share a device: their seconds then
    mean nothing.
    """

    __pydantic_config__: ClassVar[Strict] = STRICT

    schema_version: int
    launch_id: str
    rank: int
    world_size: int
    outcome: Outcome
    failure: Failure | None = None
    environment: dict[str, str] = field(default_factory=dict)
    applied: dict[str, Any] = field(default_factory=dict)
    workload_version: int = 0
    data_origin: str = ""
    weights_origin: str = ""
    parameters: int = 0
    recipe: Recipe | None = None
    quality_better: dict[str, str] = field(default_factory=dict)
    quality_learned: dict[str, float] = field(default_factory=dict)
    loss: tuple[float, ...] = ()
    gradient_norm: tuple[float, ...] = ()
    learning_rate: tuple[float, ...] = ()
    step_skipped: tuple[bool, ...] = ()
    step_seconds: tuple[float, ...] = ()
    step_samples: tuple[int, ...] = ()
    train_seconds: tuple[float, ...] = ()
    eval_seconds: float = 0.0
    setup_seconds: float = 0.0
    canary_seconds: float = 0.0
    memory: dict[Phase, PhaseMemory] = field(default_factory=dict)
    memory_source: str = ""
    device: Device | None = None
    peak_host_bytes: int = 0
    quality: dict[str, float] = field(default_factory=dict)
    evaluates_by_generating: bool = False
    averages_samples: bool = True
    step_live_bytes: tuple[int, ...] = ()
    step_host_bytes: tuple[int, ...] = ()
    traced: Traced | None = None
    samples_missed: int = 0
    samples_repeated: int = 0
    eval_samples_miscounted: int = 0
    budget_bytes: int = 0
    topology: str = ""
    probed: tuple[Probed, ...] = ()
    probing: int = 0


def record_path(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}.json"
