"""What a rank's environment is: Accelerate's variables for a strategy, and who is installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform

from zerogate.protocol.stack import STACK

# What Accelerate's launcher says to its ranks.
PREFIXES = ("ACCELERATE_", "FSDP_")


def launch_arguments(config_file: str, world_size: int, precision: str | None) -> list[str]:
    """What the cell decides, as options of ``accelerate launch``."""
    arguments = ["--config_file", config_file, "--num_processes", str(world_size)]
    if precision is not None:
        arguments += ["--mixed_precision", precision]
    return arguments


def export_accelerate_environment(
    config_file: str, world_size: int, precision: str | None
) -> dict[str, str]:
    """Set the variables that ``accelerate launch`` would give its ranks, by Accelerate's own code.

    Does nothing but read them back where ``accelerate launch`` started this rank.
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
    parsed = launch_command_parser().parse_args([*arguments, "--main_process_port", "0", "rank"])
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
    """Releases of what is under test, as a rank sees them."""
    import torch

    found = {"python": platform.python_version()}
    for name in STACK:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    if overlay := os.environ.get("ZEROGATE_OVERLAY"):
        # Which file each comes from: the record of a comparison has to show that there was one.
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
