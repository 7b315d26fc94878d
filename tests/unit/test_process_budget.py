"""A probe on a card keeps the process within its budget, also what grows outside the allocator."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from made_card import MadeCard, RankNVML
from records import a_cell, a_job

from zerogate.protocol.job import BatchKind, ProbeRequest
from zerogate.protocol.record import Probed
from zerogate.worker import cuda_memory, probe_job
from zerogate.worker.cuda_memory import CudaMemoryMeter, listed_bytes
from zerogate.worker.memory import EmulatedMemoryMeter, MemoryPhases
from zerogate.worker.oom import is_device_oom

BUDGET = 20_000
CONTEXT = 1_000
SAMPLE = 700
Load = Callable[[int, int], int]


class Rank:
    """A rank that probes. ``load`` says what its n-th step of a size takes outside the allocator."""

    def __init__(self, card: MadeCard, meter: Any, load: Load) -> None:
        self.card, self.meter, self.load = card, meter, load
        self.steps: list[int] = []
        self.probed: tuple[Probed, ...] = ()
        self.probing = 0
        self.trainer = SimpleNamespace(
            model=torch.nn.Linear(1, 1), skipped=False, step=self.step, evaluate=self.evaluate
        )

    def step(self, micro_batches: Iterator[Any]) -> None:
        (size,) = (int(batch["size"]) for batch in micro_batches)
        self.steps.append(size)
        with self.card.block(size * SAMPLE):
            self.card.load(self.load(size, len(self.steps)))

    def evaluate(self, loader: list[Any]) -> tuple[dict[str, float], float]:
        self.step(iter(loader))
        return {}, 1.0

    def add(self, probed: tuple[Probed, ...] = (), probing: int = 0) -> None:
        self.probed, self.probing = probed or self.probed, probing or self.probing

    def beat(self, step: int) -> None: ...

    def probe(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *sizes: int,
        stop: int | None = None,
        kind: BatchKind = "train",
    ) -> None:
        self.meter.set_budget(BUDGET)
        recipe = SimpleNamespace(gradient_accumulation_steps=1)
        cell = SimpleNamespace(
            trainer=self.trainer,
            phases=MemoryPhases(self.meter),
            budget_bytes=BUDGET,
            accelerator=SimpleNamespace(device=torch.device("cpu")),
            workload=SimpleNamespace(
                recipe=recipe,
                collate=lambda samples: {"size": torch.tensor(len(samples))},
            ),
            train_set=SimpleNamespace(samples=[[1]]),
            eval_set=[[1]],
        )
        monkeypatch.setattr(probe_job, "prepare", lambda job, record, started: cell)
        request = ProbeRequest(kind=kind, sizes=sizes, stop=stop)
        job = SimpleNamespace(**{**vars_of(a_job(Path("/none"), a_cell())), "probe": request})
        probe_job.probe_cell(job, self, 0.0)  # type: ignore[arg-type]


def vars_of(job: Any) -> dict[str, Any]:
    return {name: getattr(job, name) for name in job.__dataclass_fields__}


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[MadeCard]:
    found = MadeCard()
    found.outside = CONTEXT
    found.put_in_place(monkeypatch)
    monkeypatch.setattr(cuda_memory, "GROWTH_BYTES", 0)  # More than this card has.
    monkeypatch.setitem(sys.modules, "pynvml", RankNVML(found))
    yield found
    gc.unfreeze()
    gc.enable()


@pytest.fixture(params=[False, True], ids=["NVML lists the rank", "container"])
def rank(
    request: pytest.FixtureRequest, card: MadeCard, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Load], Rank]:
    monkeypatch.setitem(sys.modules, "pynvml", RankNVML(card, container=request.param))
    return lambda load: Rank(card, CudaMemoryMeter(), load)


def at_first(size: int, number: int) -> int:
    """Libraries and kernels come with the first step."""
    return 3_000 if number == 1 else 0


def test_sizes_are_tried_within_process_budget_after_first_step_grew(
    rank: Callable[[Load], Rank], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = rank(at_first)
    with pytest.raises(torch.OutOfMemoryError):
        one.probe(monkeypatch, 1, stop=4096)
    assert one.card.highest <= BUDGET
    room = BUDGET - CONTEXT - 3_000
    assert one.probed[-1].size == room // SAMPLE, "all that the budget leaves is used"
    assert one.probed[-1].process_bytes == one.probed[-1].size * SAMPLE + CONTEXT + 3_000
    assert one.probing == one.probed[-1].size + 1


def test_size_in_fresh_process_keeps_budget_from_its_first_step_on(
    rank: Callable[[Load], Rank], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = rank(at_first)
    with pytest.raises(torch.OutOfMemoryError):
        one.probe(monkeypatch, 27)
    assert one.card.highest <= BUDGET
    assert (one.probed, one.probing) == ((), 27)


def test_size_whose_process_outgrows_budget_does_not_fit(
    rank: Callable[[Load], Rank], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its third step loads a kernel, too late to take the memory from the allocator."""
    one = rank(lambda size, number: 2_000 if number == 4 else 0)
    with pytest.raises(
        torch.OutOfMemoryError, match=f"holds 20500 bytes, its budget is {BUDGET}"
    ) as e:
        one.probe(monkeypatch, 25)
    assert is_device_oom(e.value)
    assert one.probed == ()


def test_size_within_budget_after_late_growth_fits_and_next_one_has_less(
    rank: Callable[[Load], Rank], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = rank(lambda size, number: 2_000 if number == 4 else 0)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        one.probe(monkeypatch, 20, 25)
    assert [fits.process_bytes for fits in one.probed] == [20 * SAMPLE + CONTEXT + 2_000]
    assert one.card.highest <= BUDGET


def test_size_that_fills_allocator_fits_although_its_own_kernels_are_loaded(
    rank: Callable[[Load], Rank], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_memory, "GROWTH_BYTES", 500)
    one = rank(lambda size, number: 300 if number == 2 else 0)
    one.probe(monkeypatch, 26)
    assert [fits.process_bytes for fits in one.probed] == [26 * SAMPLE + CONTEXT + 300]
    assert one.probed[0].limit_bytes == BUDGET - CONTEXT - 500
    assert one.card.highest <= BUDGET


def test_eval_size_is_held_to_process_budget(
    rank: Callable[[Load], Rank], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = rank(at_first)
    with pytest.raises(torch.OutOfMemoryError):
        one.probe(monkeypatch, 10, 25, kind="eval")
    assert one.card.highest <= BUDGET
    assert [fits.size for fits in one.probed] == [10]


def test_memory_short_in_warm_up_counts_as_first_requested_size(
    rank: Callable[[Load], Rank], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = rank(at_first)
    one.card.load(BUDGET)
    with pytest.raises(torch.OutOfMemoryError):
        one.probe(monkeypatch, 8)
    assert (one.steps, one.probing) == ([1], 8)


def test_allocator_share_is_never_raised(card: MadeCard) -> None:
    meter = CudaMemoryMeter()
    meter.set_budget(BUDGET)
    for outside in (5_000, 2_000):
        card.outside = outside
        meter.keep_budget()
    assert card.limit == BUDGET - 5_000


def test_device_has_peak_of_process_that_gave_memory_back(card: MadeCard) -> None:
    meter = CudaMemoryMeter()
    phases = MemoryPhases(meter)
    with phases.phase("steady"):
        with card.block(5_000):
            card.load(300)
        card.empty_cache()
    with phases.phase("eval"):
        card.load(0)
    assert meter.device().process_bytes == card.highest == 5_000 + CONTEXT + 300


def test_device_of_process_that_nvml_does_not_list_has_no_peak(
    card: MadeCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", RankNVML(card, container=True))
    assert CudaMemoryMeter().device().process_bytes == 0


def test_process_that_nvml_lists_without_bytes_is_not_known(
    card: MadeCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = RankNVML(card)
    monkeypatch.setattr(nvml, "processes", lambda uuid: {nvml.pid: None})
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert listed_bytes("0badcafe-0000") == 0


def test_probe_on_cpu_takes_no_step_but_its_sizes(
    card: MadeCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = SimpleNamespace(
        live_bytes=lambda: 0,
        peak_bytes=lambda: 1,
        reset_peak=lambda: None,
        set_budget=lambda size: None,
    )
    library: Any = SimpleNamespace(device=pool, host=pool, pinned=pool)
    one = Rank(card, EmulatedMemoryMeter(library), lambda size, number: 0)
    one.probe(monkeypatch, 2, 1)
    assert one.steps == [2, 2, 2, 1, 1, 1]
    assert [fits.process_bytes for fits in one.probed] == [0, 0]
