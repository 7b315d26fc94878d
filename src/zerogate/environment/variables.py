"""The environment variables of a rank."""

from __future__ import annotations

import os
from pathlib import Path

from zerogate.protocol.cell import Tier
from zerogate.protocol.redact import is_secret

# Of the controller's environment, what describes somebody else's launch.
FOREIGN = (
    "ACCELERATE_", "FSDP_", "TORCHELASTIC_", "MASTER_", "GROUP_", "ROLE_", "LOCAL_",
    "RANK", "WORLD_SIZE", "OMPI_", "PMI_", "COV_CORE_", "PYTEST_",
)  # fmt: skip

ALLOCATOR_SETTINGS = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
"""CUDA's caching allocator; what it is told changes every byte. All of torch reads the first."""

PLAIN_ALLOCATOR = "expandable_segments:False"

FOR_DOWNLOADS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""The secrets that ranks get, and only on the gpu tier, which may download what is gated."""

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
    """The environment of every rank, by whichever launcher: the machine's, less other launches' and
    less its secrets: ranks write logs.

    ``native_folder`` holds what is compiled for this stack on this CPU, ``overlay`` packages that come
    before the environment's. Of a card's host each of ``world_size`` ranks has its share.
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
        # All ranks are here; the host's name need not resolve to anything.
        "GLOO_SOCKET_IFNAME": "lo",
    }
    if overlay is not None:
        own = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(overlay), own)))
        environment["ZEROGATE_OVERLAY"] = str(overlay)
    if tier == "cpu":
        environment |= OFFLINE
        environment |= {
            # Nothing of the user's, and nothing into it.
            "HF_HOME": str(native_folder / "huggingface"),
            # One thread a rank: sums are added in the same order on every machine.
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "DS_ACCELERATOR": "cpu",
        }
    else:
        # By every launcher: torchrun would give one thread, and DeepSpeed's Adam runs on the host.
        cores = len(os.sched_getaffinity(0))
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // world_size)))
        asked = [environment.pop(name, "") for name in ALLOCATOR_SETTINGS]
        environment |= {
            # Two parsers read them with opposite priority: one is set, and everybody reads that.
            ALLOCATOR_SETTINGS[0]: next(filter(None, asked), PLAIN_ALLOCATOR),
            # NVML counts devices in this order, CUDA by default does not.
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            # Counting devices must not make a CUDA context: ranks are forked after it.
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        }
    return environment
