"""Initial weights: the same ones for every strategy, so that their losses can be compared."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from accelerate import Accelerator

from zerogate.worker.workload import Workload


def build_model(workload: Workload, accelerator: Accelerator, seed: int) -> torch.nn.Module:
    """Build the workload's model with the weights that ``seed`` gives, however it is sharded.

    Under ZeRO-3 the model is built sharded, and transformers then draws its weights in a different
    order than for an unsharded model. Rank 0 replaces them by those of an unsharded one. Collective.
    """
    plugin = accelerator.state.deepspeed_plugin
    torch.manual_seed(seed)
    if plugin is None or not plugin.is_zero3_init_enabled():
        return workload.build_model()
    model: Any = workload.build_skeleton()
    from deepspeed.runtime.zero import GatheredParameters

    integrations: Any = transformers.integrations
    reference: dict[str, torch.nn.Parameter] = {}
    torch.manual_seed(seed)
    with plugin.zero3_init_context_manager(enable=False):
        integrations.unset_hf_deepspeed_config()  # The context manager leaves this on.
        if accelerator.process_index == 0:
            reference = dict(workload.build_model().named_parameters())
    for name, parameter in model.named_parameters():
        with GatheredParameters([parameter], modifier_rank=0), torch.no_grad():
            if reference:
                parameter.copy_(reference[name])
    model.tie_weights()
    sharded: torch.nn.Module = model
    return sharded
