"""gloo's collectives run on the device and give what they give on the CPU, in two ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RANK = Path(__file__).with_name("collective_rank.py")
SECONDS = 300  # Far more than ranks take; one whose peer died must not hang the suite.


@pytest.fixture(scope="module")
def ranks(library_file: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Run the two ranks; return what each of them wrote."""
    store = tmp_path_factory.mktemp("gloo") / "store"
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(RANK), str(library_file), str(store)],
            env={**os.environ, "RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        return [process.communicate(timeout=SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    "name",
    [
        "all_reduce",
        "all_reduce_in_bf16",
        "broadcast",
        "reduce",
        "all_gather",
        "all_gather_into_own_part",
        "reduce_scatter",
        "gather_and_scatter",
        "all_to_all",
        "send_and_receive",
        "functional_collectives",
        "objects",
        "ddp_gradients",
    ],
)
def test_collective_gives_what_it_gives_on_the_cpu(ranks: list[str], name: str) -> None:
    for rank, written in enumerate(ranks):
        assert name in written.splitlines(), f"rank {rank}: {written}"
