"""Builds the Accelerator for a job, as a user's script does, plus what a CPU needs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from accelerate import (
    Accelerator,
    DataLoaderConfiguration,
    FullyShardedDataParallelPlugin,
    InitProcessGroupKwargs,
)
from accelerate.state import PartialState
from accelerate.utils import DeepSpeedPlugin, DistributedType

from zerogate.protocol.cell import Tier
from zerogate.protocol.record import Job
from zerogate.protocol.stack import SHARING_NCCL
from zerogate.worker.scale_config import place_on_disk, scale_deepspeed
from zerogate.worker.workload import Workload

COLLECTIVE_TIMEOUT = timedelta(seconds=180)
NCCL_TIMEOUT = timedelta(hours=12)
"""Longer than any launch may take: NCCL's watchdog aborts the process without a word from Python, where
the controller's deadline asks every rank for its stacks first."""


def build_accelerator(job: Job, workload: Workload) -> Accelerator:
    """The Accelerator for the strategy that the environment describes.

    The ``ACCELERATE_*`` variables must be set. Raises whatever Accelerate or DeepSpeed raise.
    """
    tier = job.cell.tier
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    fsdp = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if fsdp and tier == "cpu":
        _let_accelerate_shard_on_cpu()
    return Accelerator(
        # With cpu=True Accelerate ignores DeepSpeed and FSDP and trains with plain DDP.
        cpu=tier == "cpu" and not (deepspeed or fsdp),
        gradient_accumulation_steps=workload.recipe.gradient_accumulation_steps,
        deepspeed_plugin=deepspeed_plugin(job, workload) if deepspeed else None,
        fsdp_plugin=_fsdp_plugin(workload) if fsdp else None,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=job.seed),
        kwargs_handlers=[_process_group(tier, shared=job.shared_devices > 0)],
    )


def _process_group(tier: Tier, *, shared: bool) -> InitProcessGroupKwargs:
    if tier == "gpu" and not (shared and torch.cuda.nccl.version() < SHARING_NCCL):
        return InitProcessGroupKwargs(timeout=NCCL_TIMEOUT)
    # Without a named backend Accelerate >= 1.13 believes it is alone while DeepSpeed runs N ranks.
    return InitProcessGroupKwargs(backend="gloo", timeout=COLLECTIVE_TIMEOUT)


def deepspeed_plugin(job: Job, workload: Workload) -> DeepSpeedPlugin:
    """What the ``ACCELERATE_*`` variables say of DeepSpeed, with sizes that fit the tier's model."""
    plugin = DeepSpeedPlugin()
    config = plugin.deepspeed_config
    config["train_micro_batch_size_per_gpu"] = workload.recipe.micro_batch_size
    largest = largest_parameter(workload) if _params_on_disk(config) else 0
    if job.cell.tier == "cpu":
        changed = scale_deepspeed(
            config,
            ratio=workload.scale_parameters / workload.full_parameters,
            largest_parameter=largest,
            scratch_folder=job.scratch_folder,
        )
    else:
        share = -(-largest // job.cell.world_size)
        changed = place_on_disk(config, largest=share, folder=job.scratch_folder)
        count_free_memory_without_nvml()
    # In place: the plugin's HfDeepSpeedConfig reads the same dictionary.
    config.clear()
    config.update(changed)
    return plugin


def _fsdp_plugin(workload: Workload) -> FullyShardedDataParallelPlugin:
    return FullyShardedDataParallelPlugin(
        transformer_cls_names_to_wrap=list(workload.layer_classes)
    )


def _let_accelerate_shard_on_cpu() -> None:
    """Accelerate has no way to FSDP on CPU: it would silently train with DDP.

    Its state is told that the ranks are devices of the kind it shards over; torch itself shards
    over gloo well.
    """
    PartialState(backend="gloo", timeout=COLLECTIVE_TIMEOUT)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def count_free_memory_without_nvml() -> None:
    """Where devices are named by UUID DeepSpeed 0.19 ends in asking NVML for the one with that number
    (its ``CUDA_Accelerator._get_nvml_gpu_id``); without NVML it counts what torch has left.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if all(entry.strip().isdecimal() for entry in named.split(",") if entry):
        return
    from deepspeed.accelerator import cuda_accelerator, get_accelerator

    get_accelerator()  # Which looks for NVML once.
    cuda_accelerator.pynvml = None


def _params_on_disk(config: Mapping[str, Any]) -> bool:
    section = config.get("zero_optimization", {}).get("offload_param") or {}
    return bool(section.get("device") == "nvme")


def largest_parameter(workload: Workload) -> int:
    """Elements of the workload's largest parameter, found without memory."""
    with torch.device("meta"):
        model = workload.build_skeleton()
    return max(parameter.numel() for parameter in model.parameters())
