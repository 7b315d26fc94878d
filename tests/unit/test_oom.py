"""Which errors count as running out of device memory: messages as the libraries word them."""

from __future__ import annotations

import pytest
import torch

from zerogate.worker.oom import is_device_oom


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(torch.OutOfMemoryError("Tried to allocate 20 bytes"), id="torch's allocator"),
        pytest.param(
            RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), id="re-raised"
        ),
        pytest.param(
            RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"), id="CUDA"
        ),
        pytest.param(
            RuntimeError("NCCL error, unhandled cuda error: Cuda failure 2 'out of memory'"),
            id="NCCL",
        ),
        pytest.param(RuntimeError("Failed to CUDA calloc 4194304 bytes"), id="NCCL's buffers"),
        pytest.param(RuntimeError("CUDA driver error: out of memory"), id="the driver"),
        pytest.param(
            RuntimeError(
                'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "/c10/cuda/CUDACachingAllocator.cpp":'
                "1319, please report a bug to PyTorch."
            ),
            id="torch, where NVML does not answer it",
        ),
        pytest.param(
            RuntimeError(
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
            ),
            id="cuBLAS",
        ),
        pytest.param(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), id="cuDNN"),
    ],
)
def test_device_oom_error_is_detected(error: BaseException) -> None:
    assert is_device_oom(error)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you "
                "tried to allocate 800 bytes. Error code 12 (Cannot allocate memory)"
            ),
            id="the host's allocator",
        ),
        pytest.param(MemoryError(), id="Python's"),
        pytest.param(RuntimeError("CUDA error: invalid argument"), id="another CUDA error"),
        pytest.param(ValueError("CUDA out of memory"), id="a word in something else"),
    ],
)
def test_other_error_is_not_device_oom(error: BaseException) -> None:
    assert not is_device_oom(error)
