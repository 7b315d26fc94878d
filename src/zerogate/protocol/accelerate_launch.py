"""The part of ``accelerate launch``'s command line that a cell decides."""

from __future__ import annotations


def launch_arguments(config_file: str, world_size: int, precision: str | None) -> list[str]:
    """Return the options for a strategy file; ``precision`` is the one that the machine forces."""
    arguments = ["--config_file", config_file, "--num_processes", str(world_size)]
    if precision is not None:
        arguments += ["--mixed_precision", precision]
    return [*arguments, "--main_process_port", "0"]  # 0: whichever port is free.
