"""The launcher interface: start a job's ranks, wait, and leave no process behind."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from zerogate.cell import Tier
from zerogate.launch.watch import Watch
from zerogate.record import Job
from zerogate.secret import is_secret

PEERS_GRACE_SECONDS = 3.0
"""How long ranks may take to leave by themselves once one of them has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a launch ended. ``exit_codes`` by process name; negative ones are signals.

    A process that was ended by the launcher because of another's failure is not in it. ``overdue``
    says what was late where that ended it, and ``stacks`` where every rank then stood; ``oom_kills``
    counts processes that the kernel killed meanwhile because the host had no memory left.
    """

    exit_codes: dict[str, int]
    seconds: float
    log: Path
    overdue: str = ""
    stacks: str = ""
    oom_kills: int = 0

    @property
    def failed(self) -> bool:
        return bool(self.overdue) or any(code != 0 for code in self.exit_codes.values())


class Launcher(Protocol):
    """Starts the ranks of one job at a time. ``launch`` returns once no process of it is left."""

    name: str

    def launch(
        self, job: Job, folder: Path, environment: dict[str, str], watch: Watch
    ) -> Ended: ...

    def close(self) -> None: ...


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


def free_port() -> int:
    """A loopback TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
