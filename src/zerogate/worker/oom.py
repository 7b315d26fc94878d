"""Whether an error says that the device is out of memory.

torch raises OutOfMemoryError from its own allocator alone. CUDA, NCCL and the math libraries allocate
by themselves and say so in messages of theirs. A host that is out of memory is another matter.
"""

from __future__ import annotations

import re

import torch

DEVICE_MESSAGES = {
    "CUDA": r"CUDA (driver )?(error: )?out of memory",
    # Where NVML may not list processes torch fails over its own words for running out.
    "torch": r"NVML_SUCCESS == .*INTERNAL ASSERT FAILED .*CUDACachingAllocator",
    "NCCL": r"Cuda failure (\d+ )?'out of memory'|Failed to CUDA [cm]alloc",
    "cuBLAS": r"CUBLAS_STATUS_ALLOC_FAILED",
    "cuDNN": r"CUDNN_STATUS_(INTERNAL_ERROR_DEVICE_)?ALLOC",
}
"""What each library's message has in it."""

_DEVICE = re.compile("|".join(DEVICE_MESSAGES.values()))


NO_HANDLE = "CUBLAS_STATUS_NOT_INITIALIZED"
"""What cuBLAS says when there is no room for its handle, and in other misfortunes."""
HANDLE_BYTES = 256 * 2**20


def is_device_oom(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    return bool(_DEVICE.search(str(error))) or (NO_HANDLE in str(error) and _is_full())


def _is_full() -> bool:
    return torch.cuda.is_initialized() and torch.cuda.mem_get_info()[0] < HANDLE_BYTES
