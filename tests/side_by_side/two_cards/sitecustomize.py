"""Two CUDA devices that are none, in every Python process that has this folder on its path.

Controllers get an NVML made by hand, ranks the pretended card. Ranks of the first probe of two cells
wait for each other, in the FIFO that ZEROGATE_TEST_MEET names.
"""

import os
import sys
from pathlib import Path

CARDS = ("0badcafe-0001", "0badcafe-0002")
"""UUIDs as torch has them; NVML's begin with GPU-."""


def pretend_driver() -> None:
    """Put an NVML that tells of the two cards in place of the module ``pynvml``."""
    import psutil

    from tests.launch.pretended_card import NAME, TOTAL_BYTES
    from tests.made_nvml import MadeNVML

    class Driver(MadeNVML):
        uuids = tuple(f"GPU-{uuid}" for uuid in CARDS)
        name = NAME
        total_bytes = TOTAL_BYTES

        def processes(self, uuid: str) -> dict[int, int]:
            found = {}
            for one in psutil.Process().children(recursive=True):
                try:
                    variables, command = one.environ(), one.cmdline()
                except psutil.Error:
                    continue
                # A rank's own children have its variables too.
                if (
                    "RANK" in variables
                    and "zerogate.worker.main" in command
                    and f"GPU-{_card(variables)}" == uuid
                ):
                    found[one.pid] = 3 * 2**30
            return found

    sys.modules["pynvml"] = Driver()


def pretend_card() -> None:
    """Make this rank's card the first of those that it was given."""
    from tests.launch import pretended_card

    pretended_card.UUID = _card(os.environ)
    pretended_card.pretend()


def _card(variables: "os._Environ[str] | dict[str, str]") -> str:
    given = variables.get("CUDA_VISIBLE_DEVICES") or f"GPU-{CARDS[0]}"
    return given.split(",")[0].removeprefix("GPU-")


def meet(launch: Path) -> None:
    """Return once the first probes of both cells have come here; each opens one end."""
    fifo = os.environ.get("ZEROGATE_TEST_MEET")
    leased = "CUDA_VISIBLE_DEVICES" in os.environ
    if fifo and leased and launch.name == "train-batch-0":
        with Path(fifo).open("w" if launch.parent.name.startswith("toy_faults") else "r"):
            pass


if __name__ == "sitecustomize":
    if "zerogate.worker.main" in sys.orig_argv and "RANK" in os.environ:
        meet(Path(sys.orig_argv[-1]))
        pretend_card()
    elif {"pytest", "zerogate.session.search_cell"} & {*sys.orig_argv}:
        pretend_driver()
