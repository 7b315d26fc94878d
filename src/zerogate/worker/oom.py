"""Detection of errors that mean that the device is out of memory.

torch raises OutOfMemoryError only from its own allocator. CUDA, NCCL and the math libraries allocate
by themselves and have messages of their own. Errors of a host that is out of memory do not count.
"""

from __future__ import annotations

import re

import torch

DEVICE_MESSAGES = {
    "CUDA": r"CUDA (driver )?(error: )?out of memory",
    # If NVML may not list processes, torch fails while it writes its out-of-memory message.
    "torch": r"NVML_SUCCESS == .*INTERNAL ASSERT FAILED .*CUDACachingAllocator",
    "NCCL": r"Cuda failure (\d+ )?'out of memory'|Failed to CUDA [cm]alloc",
    "cuBLAS": r"CUBLAS_STATUS_ALLOC_FAILED",
    "cuDNN": r"CUDNN_STATUS_(INTERNAL_ERROR_DEVICE_)?ALLOC",
}
"""Pattern of each library's out-of-memory message."""

_DEVICE = re.compile("|".join(DEVICE_MESSAGES.values()))


NO_HANDLE = "CUBLAS_STATUS_NOT_INITIALIZED"
"""cuBLAS's error if there is no memory for its handle; it has other causes too."""
HANDLE_BYTES = 256 * 2**20


def is_device_oom(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    return bool(_DEVICE.search(str(error))) or (NO_HANDLE in str(error) and _is_full())


def _is_full() -> bool:
    return torch.cuda.is_initialized() and torch.cuda.mem_get_info()[0] < HANDLE_BYTES
