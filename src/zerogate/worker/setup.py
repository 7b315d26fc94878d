"""Set-up of every launch on a rank: it turns the job into a model that is ready to train."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
from torch.utils.data import DataLoader

from zerogate.protocol.job import Job
from zerogate.protocol.record import PRETRAINED, SHARED_DEVICE
from zerogate.worker import emulated_device, memory, ops
from zerogate.worker.accelerator import build_accelerator
from zerogate.worker.cuda_memory import CudaMemoryMeter
from zerogate.worker.environment import export_accelerate_environment, software
from zerogate.worker.gloo import make_collectives_wait
from zerogate.worker.initial_weights import weights_file
from zerogate.worker.model import build_model, build_optimizer
from zerogate.worker.native_library import NativeLibrary, build
from zerogate.worker.sample_audit import CountedSamples
from zerogate.worker.scale_config import scale_bytes
from zerogate.worker.trainer import Trainer
from zerogate.worker.verify_config import (
    NotPossibleError,
    check_collectives,
    check_engine_config,
    engine_config,
)
from zerogate.worker.workload import Corpus, Workload, load_workload_class

if TYPE_CHECKING:
    from zerogate.worker.record_builder import RecordBuilder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """A cell on one rank, checked and ready. ``budget_bytes`` is None if there is no budget."""

    workload: Workload
    accelerator: Accelerator
    phases: memory.MemoryPhases
    trainer: Trainer
    train_set: CountedSamples
    train_loader: Any
    eval_set: Any
    eval_loader: Any
    canary_seconds: float
    budget_bytes: int | None


def prepare(job: Job, record: RecordBuilder, started: float) -> Prepared:
    """Build the cell of ``job`` and check that the engine runs what the job requests.

    ``started`` is the ``perf_counter`` at which this rank began. Raises NotAppliedError.
    """
    meter, library = _device(job, record)
    workload = job_workload(job)
    export_accelerate_environment(job.config_file, job.cell.world_size, job.precision)
    record.add(
        environment=software(),
        workload_version=workload.version,
        data_origin=job.data_origin,
        parameters=workload.parameters,
        recipe=workload.recipe,
        quality_better={name: quality.better for name, quality in workload.quality.items()},
        quality_learned={name: quality.learned for name, quality in workload.quality.items()},
        evaluates_by_generating=workload.evaluates_by_generating,
        averages_samples=workload.averages_samples,
        weights_origin=PRETRAINED if workload.pretrained else "random",
        topology=SHARED_DEVICE if job.shared_devices else "",
    )
    if library is not None:
        make_collectives_wait(lambda: library.device.live_bytes() + library.host.live_bytes())
    ops.load(job.ops, Path(os.environ["ZEROGATE_NATIVE_DIR"]))
    accelerator = build_accelerator(job, workload)
    if accelerator.distributed_type == DistributedType.FSDP:
        check_collectives(accelerator.device)
    samples, eval_set = workload.datasets()
    train_set = CountedSamples(samples, workload.collate)
    phases = memory.MemoryPhases(meter)
    canary = memory.canary_seconds()
    budget_bytes = _set_budget(job, workload, phases)
    record.add(canary_seconds=canary, budget_bytes=budget_bytes or 0)
    with phases.phase("init"):
        trainer, train_loader, eval_loader = _prepare(
            job, workload, accelerator, phases, train_set, eval_set
        )
    found = engine_config(accelerator, trainer.model, trainer.optimizer, workload.recipe)
    record.add(applied=found, setup_seconds=time.perf_counter() - started)
    check_engine_config(
        {
            **job.requested,
            "gradient_accumulation_steps": workload.recipe.gradient_accumulation_steps,
            "micro_batch_size": workload.recipe.micro_batch_size,
            "gradient_clipping": workload.recipe.max_gradient_norm,
        },
        found,
    )
    return Prepared(
        workload=workload,
        accelerator=accelerator,
        phases=phases,
        trainer=trainer,
        train_set=train_set,
        train_loader=train_loader,
        eval_set=eval_set,
        eval_loader=eval_loader,
        canary_seconds=canary,
        budget_bytes=budget_bytes,
    )


def _set_budget(job: Job, workload: Workload, phases: memory.MemoryPhases) -> int | None:
    """Limit the device memory of a rank whose job has a budget; return the limit in bytes.

    On a card it is the whole process's; on a CPU it counts from what the rank holds before the model.
    Raises NotPossibleError if the device has less.
    """
    if job.device_memory_bytes is None:
        return None
    budget, capacity = job.device_memory_bytes, phases.meter.capacity_bytes()
    if job.shared_devices:
        capacity //= -(-job.cell.world_size // job.shared_devices)
    if job.cell.tier == "cpu":
        budget = scale_bytes(budget, ratio=workload.scale_parameters / workload.full_parameters)
        capacity //= job.cell.world_size  # The ranks share the host's memory.
    if budget > capacity:
        raise NotPossibleError(
            f"--device-memory: {budget} bytes for each rank (on the cpu tier, the scale model's "
            f"share) are too many; this device has {capacity} for each; choose less"
        )
    phases.meter.set_budget(budget, phases.floor_bytes)
    return budget


def _prepare(
    job: Job,
    workload: Workload,
    accelerator: Accelerator,
    phases: memory.MemoryPhases,
    train_set: Any,
    eval_set: Any,
) -> tuple[Trainer, Any, Any]:
    recipe = workload.recipe
    set_seed(job.seed)
    weights = weights_file(job, workload)
    model: Any = build_model(workload, accelerator, job.seed, weights)
    train_loader: Any = DataLoader(
        train_set,
        shuffle=True,
        batch_size=recipe.micro_batch_size,
        collate_fn=train_set.collate,
    )
    eval_loader: Any = DataLoader(
        eval_set, batch_size=recipe.eval_micro_batch_size, collate_fn=workload.collate
    )
    per_step = (
        recipe.micro_batch_size * recipe.gradient_accumulation_steps * accelerator.num_processes
    )
    if len(train_set) < per_step:
        raise NotPossibleError(
            f"{job.data_folder}: {len(train_set)} samples to train on; one optimizer step takes "
            f"{per_step} (micro-batch {recipe.micro_batch_size} x accumulation "
            f"{recipe.gradient_accumulation_steps} x {accelerator.num_processes} ranks); use more "
            "data or fewer ranks"
        )
    total_steps = -(-len(train_set) // per_step) * recipe.epochs
    optimizer, scheduler = build_optimizer(accelerator, model, recipe, total_steps)
    model, optimizer, train_loader, scheduler = accelerator.prepare(
        model, optimizer, train_loader, scheduler
    )
    # Prepared separately: DeepSpeed would use the smallest batch size that it sees.
    eval_loader = accelerator.prepare_data_loader(eval_loader)
    if accelerator.distributed_type == DistributedType.FSDP and hasattr(model, "generate"):
        # FSDP2 gathers parameters around forward; generate must count as a forward method.
        torch.distributed.fsdp.register_fsdp_forward_method(model, "generate")
    trainer = Trainer(accelerator, workload, model, optimizer, scheduler, phases)
    return trainer, train_loader, eval_loader


def job_workload(job: Job) -> Workload:
    """Build the workload for the job: its tier, its data, and its changes to the recipe."""
    workload_class = load_workload_class(Path(job.workload_file))
    tier = job.cell.tier
    changes: dict[str, Any] = {
        name: value
        for name, value in (
            ("learning_rate", job.learning_rate),
            ("micro_batch_size", job.micro_batch_size),
            ("gradient_accumulation_steps", job.gradient_accumulation_steps),
        )
        if value is not None
    }
    if changes:
        recipe = dataclasses.replace(workload_class.recipes[tier], **changes)
        workload_class.recipes = {**workload_class.recipes, tier: recipe}
    corpus = Corpus(folder=Path(job.data_folder), origin=job.data_origin)
    return workload_class(tier=tier, corpus=corpus)


def _device(job: Job, record: RecordBuilder) -> tuple[memory.MemoryMeter, NativeLibrary | None]:
    """Return the meter of the rank's device, and the library that emulates it on the cpu tier."""
    if job.cell.tier == "gpu":
        meter = CudaMemoryMeter()
        record.add(memory_source=meter.source)
        record.add_at_end(lambda: {"device": meter.device()})
        return meter, None
    library = NativeLibrary(
        build(Path(os.environ["ZEROGATE_NATIVE_DIR"])), devices=job.cell.world_size
    )
    emulated_device.register(library)
    emulated_device.use(int(os.environ["LOCAL_RANK"]))
    record.add(memory_source=memory.EmulatedMemoryMeter.source)
    return memory.EmulatedMemoryMeter(library), library
