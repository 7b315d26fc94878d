"""A rank's environment: Accelerate's variables for a strategy, and the installed releases."""

from __future__ import annotations

import importlib.util
import os
import platform

from zerogate.protocol.accelerate_launch import launch_arguments
from zerogate.protocol.stack import STACK, installed_version

# Accelerate's launcher sets variables with these prefixes for its ranks.
PREFIXES = ("ACCELERATE_", "FSDP_")


def export_accelerate_environment(
    config_file: str, world_size: int, precision: str | None
) -> dict[str, str]:
    """Set the variables that ``accelerate launch`` sets for its ranks, by Accelerate's own code.

    Returns them. Sets none if ``accelerate launch`` started this rank.
    """
    if "ACCELERATE_MIXED_PRECISION" not in os.environ:
        os.environ.update(_accelerate_environment(config_file, world_size, precision))
    return {name: value for name, value in os.environ.items() if name.startswith(PREFIXES)}


def _accelerate_environment(
    config_file: str, world_size: int, precision: str | None
) -> dict[str, str]:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    arguments = launch_arguments(config_file, world_size, precision)
    parsed = launch_command_parser().parse_args([*arguments, "rank"])
    args, defaults, precision_from_file = _validate_launch_command(parsed)
    if args.use_deepspeed:
        # As launch_command does before it starts ranks.
        fields = list(defaults.deepspeed_config)
        fields += ["mixed_precision"] if precision_from_file else []
        args.deepspeed_fields_from_accelerate_config = ",".join(fields)
        _, environment = prepare_deepspeed_cmd_env(args)
    else:
        environment = prepare_multi_gpu_env(args)
    return {name: value for name, value in environment.items() if name.startswith(PREFIXES)}


def software() -> dict[str, str]:
    """Return the releases of the packages under test, as a rank sees them."""
    import torch

    found = {"python": platform.python_version()}
    found |= {name: installed_version(name) or "absent" for name in STACK}
    if overlay := os.environ.get("ZEROGATE_OVERLAY"):
        # The files prove in the record that a comparison really used other packages.
        for name in STACK:
            spec = importlib.util.find_spec(name)
            if spec is not None and spec.origin and spec.origin.startswith(overlay):
                found[f"{name}_file"] = spec.origin
    found["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
        found["threads"] = os.environ.get("OMP_NUM_THREADS", "")
        found["allocator_settings"] = os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "")
    return found
