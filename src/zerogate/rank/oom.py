"""Whether an error says that the device is out of memory.

torch raises OutOfMemoryError from its own allocator alone. CUDA, NCCL and the math libraries allocate
by themselves and say so in messages of theirs. A host that is out of memory is another matter.
"""

from __future__ import annotations

import re

import torch

DEVICE_MESSAGES = {
    "CUDA": r"CUDA (error: )?out of memory",
    "NCCL": r"Cuda failure \d+ 'out of memory'|Failed to CUDA calloc",
    "cuBLAS": r"CUBLAS_STATUS_ALLOC_FAILED",
    "cuDNN": r"CUDNN_STATUS_(INTERNAL_ERROR_DEVICE_)?ALLOC",
}
"""What each library's message has in it."""

_DEVICE = re.compile("|".join(DEVICE_MESSAGES.values()))


def is_device_oom(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and bool(_DEVICE.search(str(error)))
    )
