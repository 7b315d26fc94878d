"""Model states, measured and taken apart by who holds them: writes docs/model-states.md's tables."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.model_states import owners
from tests.model_states.page import TABLES, Row, page
from zerogate.config.options import Options
from zerogate.launch.forkserver import ForkserverLauncher
from zerogate.metrics.model_states import paper_bytes_per_parameter
from zerogate.protocol.atomic_write import write_json
from zerogate.protocol.cell import Cell
from zerogate.protocol.job import Job, job_path
from zerogate.session.session import Session

ROOT = Path(__file__).parents[2]
STRATEGIES = (
    "ddp", "zero1", "zero2", "zero2_config_file", "zero2_offload", "zero3", "zero3_offload",
    "zero3_nvme", "fsdp2", "fsdp2_offload",
)  # fmt: skip
WORKLOADS = ("deberta_mrpc", "blenderbot_mudoconv", "gpt2xl_wikitext2")
PRELOAD = f"{owners.__file__}::{owners.watch.__name__}"


@pytest.fixture(scope="module")
def rows() -> Iterator[list[Row]]:
    found: list[Row] = []
    yield found
    if len(found) == len(STRATEGIES) * len(WORKLOADS):
        path = ROOT / "docs" / "model-states.md"
        head = path.read_text().partition(TABLES)[0]
        path.write_text(page(head, found))


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("owners")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(owners.FOLDER, str(folder))

        def preload(job: Job, launch: Path) -> None:
            write_json(job_path(launch), dataclasses.replace(job, preload=(PRELOAD,)))

        options = Options(root=ROOT, report_folder=folder)
        running = Session(
            options,
            launchers={"forkserver": lambda: ForkserverLauncher(folder)},
            launch_hook=preload,
        )
        yield running
        running.runner.close()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_model_state_bytes_equal_sum_over_owners(
    session: Session, rows: list[Row], workload: str, strategy: str
) -> None:
    cell = Cell(workload=workload, strategy=strategy, world_size=2, tier="cpu")
    if reason := session.setup.unavailable(cell):
        pytest.skip(reason)
    measured = session.measure(cell)
    parameters = measured.settings["parameters"]
    found: list[dict[str, Any]] = [
        json.loads((session.options.report_folder / f"rank{rank}.json").read_text())
        for rank in (0, 1)
    ]
    metrics = {"device": "model_state_bytes", "host": "host_state_bytes"}
    held = {}
    for place in ("device", "host", "outside"):
        heaviest = max((one[place] for one in found), key=lambda one: sum(one.values()))
        if metric := metrics.get(place):
            assert sum(heaviest.values()) == measured.value(metric)
            assert min(heaviest.values()) >= 0, "an owner has what was not counted"
        held[place] = {name: size / parameters for name, size in heaviest.items()}
    paper = paper_bytes_per_parameter(session.setup.strategy(cell), 2, 4)
    rows.append(Row(workload, strategy, paper, **held))
    print(f"\n{cell.id}: {paper}; {held}")
