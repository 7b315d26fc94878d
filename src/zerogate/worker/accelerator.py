"""The Accelerator for a job, built as in a user's script, plus what a CPU needs."""

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
from zerogate.protocol.job import Job
from zerogate.protocol.stack import SHARING_NCCL
from zerogate.worker import emulated_device
from zerogate.worker.scale_config import place_on_disk, scale_deepspeed
from zerogate.worker.workload import Workload

COLLECTIVE_TIMEOUT = timedelta(seconds=180)
NCCL_TIMEOUT = timedelta(hours=12)
"""Timeout longer than any launch may take. NCCL's watchdog would abort the process without a Python
traceback; the controller's deadline requests the stacks of every rank first."""


def build_accelerator(job: Job, workload: Workload) -> Accelerator:
    """Build the Accelerator for the strategy that the environment describes.

    The ``ACCELERATE_*`` variables must be set. Raises whatever Accelerate or DeepSpeed raise.
    """
    tier = job.cell.tier
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    fsdp = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if tier == "cpu":
        _train_on_emulated_device(deepspeed=deepspeed)
    return Accelerator(
        gradient_accumulation_steps=workload.recipe.gradient_accumulation_steps,
        deepspeed_plugin=deepspeed_plugin(job, workload) if deepspeed else None,
        fsdp_plugin=_fsdp_plugin(workload) if fsdp else None,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=job.seed),
        kwargs_handlers=[_process_group(tier, shared=job.shared_devices > 0)],
    )


def _process_group(tier: Tier, *, shared: bool) -> InitProcessGroupKwargs:
    if tier == "gpu" and not (shared and torch.cuda.nccl.version() < SHARING_NCCL):
        return InitProcessGroupKwargs(timeout=NCCL_TIMEOUT)
    # Without a named backend Accelerate >= 1.13 assumes one process while DeepSpeed runs N ranks.
    return InitProcessGroupKwargs(backend="gloo", timeout=COLLECTIVE_TIMEOUT)


def deepspeed_plugin(job: Job, workload: Workload) -> DeepSpeedPlugin:
    """Return the plugin that the ``ACCELERATE_*`` variables describe, sized for the tier's model."""
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


def _train_on_emulated_device(*, deepspeed: bool) -> None:
    """Make Accelerate, and ``deepspeed`` below it, use the emulated device as they use a card.

    Accelerate finds out about a card by asking torch.cuda and the like, but takes a device that a
    variable names. All that is missing is that several ranks with a device each are ``MULTI_GPU``.
    """
    if deepspeed:
        from zerogate.worker.emulated_accelerator import use_emulated_device

        use_emulated_device()
    os.environ["ACCELERATE_TORCH_DEVICE"] = f"{emulated_device.NAME}:{os.environ['LOCAL_RANK']}"

    def prepare_backend(*_: Any, **__: Any) -> tuple[str, DistributedType]:
        return "gloo", DistributedType.MULTI_GPU

    PartialState._prepare_backend = prepare_backend


def count_free_memory_without_nvml() -> None:
    """Make DeepSpeed count free memory by torch instead of NVML if devices are named by UUID.

    DeepSpeed 0.19 parses every entry of CUDA_VISIBLE_DEVICES as a number to ask NVML for that device,
    and fails on a UUID (``CUDA_Accelerator._get_nvml_gpu_id``).
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if all(entry.strip().isdecimal() for entry in named.split(",") if entry):
        return
    from deepspeed.accelerator import cuda_accelerator, get_accelerator

    get_accelerator()  # Looks for NVML, once.
    cuda_accelerator.pynvml = None


def _params_on_disk(config: Mapping[str, Any]) -> bool:
    section = config.get("zero_optimization", {}).get("offload_param") or {}
    return bool(section.get("device") == "nvme")


def largest_parameter(workload: Workload) -> int:
    """Return the number of elements of the workload's largest parameter, without allocating it."""
    with torch.device("meta"):
        model = workload.build_skeleton()
    return max(parameter.numel() for parameter in model.parameters())
