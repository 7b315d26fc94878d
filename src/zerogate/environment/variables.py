"""The environment variables of a rank."""

from __future__ import annotations

import os
from pathlib import Path

from zerogate.protocol.cell import Tier
from zerogate.protocol.record import PLAIN_ALLOCATOR
from zerogate.protocol.redact import is_secret

# Variables of the controller's environment that describe another launch.
FOREIGN = (
    "ACCELERATE_", "FSDP_", "TORCHELASTIC_", "MASTER_", "GROUP_", "ROLE_", "LOCAL_",
    "RANK", "WORLD_SIZE", "OMPI_", "PMI_", "COV_CORE_", "PYTEST_",
)  # fmt: skip

ALLOCATOR_SETTINGS = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
"""Variables of CUDA's caching allocator, which change every byte. All of torch reads the first."""

FOR_DOWNLOADS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""The only secrets that ranks get, on the gpu tier alone, which may download gated files."""

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_OFFLINE": "1",
}


def rank_environment(
    tier: Tier, native_folder: Path, overlay: Path | None = None, *, world_size: int = 1
) -> dict[str, str]:
    """Return the environment of every rank, for every launcher.

    It is this process's, without the variables of other launches and without secrets, since ranks
    write logs. ``native_folder`` holds the ops compiled for this stack on this CPU; ``overlay``
    holds packages that come before the environment's. On the gpu tier, each of ``world_size`` ranks
    gets an equal share of the host's cores.
    """
    secrets = FOR_DOWNLOADS if tier == "gpu" else ()
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(FOREIGN) and (name in secrets or not is_secret(name))
    }
    environment |= {
        "ZEROGATE_NATIVE_DIR": str(native_folder),
        "TORCH_EXTENSIONS_DIR": str(native_folder),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "TQDM_DISABLE": "1",
        # All ranks run on this host, whose name need not resolve.
        "GLOO_SOCKET_IFNAME": "lo",
    }
    if overlay is not None:
        own = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(overlay), own)))
        environment["ZEROGATE_OVERLAY"] = str(overlay)
    if tier == "cpu":
        environment |= OFFLINE
        environment |= {
            # Neither read the user's cache nor write into it.
            "HF_HOME": str(native_folder / "huggingface"),
            # One thread per rank: sums are added in the same order on every machine.
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "DS_ACCELERATOR": "cpu",
        }
    else:
        # For every launcher: torchrun would set one thread, and DeepSpeed's Adam runs on the host.
        cores = len(os.sched_getaffinity(0))
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // world_size)))
        settings = [environment.pop(name, "") for name in ALLOCATOR_SETTINGS]
        environment |= {
            # Two parsers read them with opposite priority, so only one is set, which both read.
            ALLOCATOR_SETTINGS[0]: next(filter(None, settings), PLAIN_ALLOCATOR),
            # NVML counts devices in this order; CUDA does not by default.
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            # Counting devices must not call the CUDA driver: ranks are forked after it.
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
            # numpy's and scipy's BLAS would start threads on import, before ranks are forked.
            "OPENBLAS_NUM_THREADS": "1",
        }
        # Spares DeepSpeed the search for an accelerator, which asks torch for devices.
        environment.setdefault("DS_ACCELERATOR", "cuda")
    return environment
