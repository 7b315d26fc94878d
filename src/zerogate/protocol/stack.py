"""What is under test."""

from __future__ import annotations

STACK = ("torch", "accelerate", "deepspeed", "transformers", "datasets", "evaluate")
"""The packages that ranks import, by the name that is both the distribution's and the module's."""

SHARING_NCCL = (2, 30)
"""The first that lets ranks share a device; gloo carries CUDA tensors instead, through the host."""
