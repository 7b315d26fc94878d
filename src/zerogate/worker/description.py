"""Description of a cell in the terms of its libraries, for a script that does not need zerogate.

    python -m zerogate.worker.description JOB

prints it as JSON. This starts no ranks.
"""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from zerogate.protocol.job import Job, read_job
from zerogate.worker.accelerator import deepspeed_plugin
from zerogate.worker.environment import export_accelerate_environment
from zerogate.worker.setup import job_workload


def describe(job: Job) -> dict[str, Any]:
    """Return the model's class and config, the shapes of a micro-batch's tensors, the engine's
    settings as this tier applies them, and the recipe.
    """
    environment = export_accelerate_environment(job.config_file, job.cell.world_size, job.precision)
    workload = job_workload(job)
    plugin: Any = None
    if environment.get("ACCELERATE_USE_DEEPSPEED") == "true":
        plugin = deepspeed_plugin(job, workload)
    with torch.device("meta"):
        model: Any = workload.build_skeleton()
    samples, _ = workload.datasets()
    loader: Any = DataLoader(
        samples,  # type: ignore[arg-type]
        batch_size=workload.recipe.micro_batch_size,
        collate_fn=workload.collate,
    )
    (batch,) = islice(loader, 1)
    recipe = workload.recipe
    return {
        "environment": environment,
        "deepspeed": plugin.deepspeed_config if plugin else None,
        "zero3_init": bool(plugin and plugin.zero3_init_flag),
        "model_class": type(model).__name__,
        "model_config": _unlike_default(model.config),
        "loss_type": getattr(model, "loss_type", None),
        "layer_classes": list(workload.layer_classes),
        "batch": {
            name: {
                "shape": list(tensor.shape),
                "dtype": str(tensor.dtype),
                # Values below 0 are padding, which a loss ignores.
                "low": max(0, int(tensor.min())),
                "high": int(tensor.max()) + 1,
            }
            for name, tensor in batch.items()
        },
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "accumulation": recipe.gradient_accumulation_steps,
        "max_gradient_norm": recipe.max_gradient_norm,
        "seed": job.seed,
    }


def _unlike_default(config: Any) -> dict[str, Any]:
    """Return the model's type and the fields that differ from its defaults."""
    default = type(config)().to_dict()
    kept = {name: value for name, value in config.to_dict().items() if value != default.get(name)}
    for name in ("architectures", "dtype", "transformers_version"):
        kept.pop(name, None)
    return {"model_type": config.model_type, **kept}


if __name__ == "__main__":
    print(json.dumps(describe(read_job(Path(sys.argv[1])))))
