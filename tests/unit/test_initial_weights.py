"""Initial weights from the cache: the same model and the same random numbers after it, whatever state
the cache is in.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from test_workloads import NAMES, load

from zerogate.worker import initial_weights
from zerogate.worker.initial_weights import build, read, write

SEED = 25


def drawn(workload: Any) -> torch.nn.Module:
    torch.manual_seed(SEED)
    built: torch.nn.Module = workload.build_model()
    return built


def cached(workload: Any, path: Path, *, keep: bool = True) -> torch.nn.Module:
    torch.manual_seed(SEED)
    return build(workload, path, keep=keep)


def tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """By all of their names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def ties(model: torch.nn.Module) -> list[int]:
    """Of each tensor, the place of the first name that it has."""
    first: dict[int, int] = {}
    return [first.setdefault(id(one), len(first)) for one in tensors(model).values()]


def assert_same(found: torch.nn.Module, wanted: torch.nn.Module) -> None:
    ours, theirs = tensors(found), tensors(wanted)
    assert list(ours) == list(theirs)
    assert ties(found) == ties(wanted)
    for name, one in ours.items():
        other = theirs[name]
        assert type(one) is type(other), name
        assert (one.dtype, one.requires_grad) == (other.dtype, other.requires_grad), name
        assert one.shape == other.shape, name
        assert one.detach().numpy().tobytes() == other.detach().numpy().tobytes(), name
    assert [name for name, _ in found.named_parameters()] == [
        name for name, _ in wanted.named_parameters()
    ]


def next_numbers() -> tuple[list[float], float, float]:
    return torch.rand(4).tolist(), random.random(), float(np.random.random())


class Small:
    """A workload of one layer, which counts how often its weights were drawn."""

    width = 8
    reads_a_weight = False

    def __init__(self) -> None:
        self.draws = 0

    def build_model(self) -> torch.nn.Module:
        layer = torch.nn.Linear(self.width, self.width)
        self.draws += layer.weight.device.type == "cpu"
        if self.reads_a_weight:
            layer.weight.sum().item()
        layer.register_buffer("noise", torch.rand(3))
        return layer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "small.safetensors"


@pytest.mark.parametrize("name", NAMES)
def test_cached_model_and_random_numbers_after_it_equal_drawn_ones(name: str, path: Path) -> None:
    workload = load(name)
    random.seed(SEED)
    np.random.seed(SEED)
    wanted = drawn(workload)
    after = next_numbers()
    for _ in ("stores", "loads"):
        random.seed(SEED)
        np.random.seed(SEED)
        assert_same(cached(workload, path), wanted)
        assert next_numbers() == after
    assert path.stat().st_size > workload.scale_parameters * 4


def test_second_model_is_not_drawn_and_has_the_random_buffer(path: Path) -> None:
    workload = Small()
    first = cached(workload, path)
    assert_same(cached(workload, path), first)
    assert workload.draws == 1


def test_training_a_cached_model_leaves_the_file_as_it_was(path: Path) -> None:
    workload = Small()
    cached(workload, path)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    model = cached(workload, path)
    maps = Path("/proc/self/maps").read_text().splitlines()
    assert {line.split()[1] for line in maps if line.endswith(str(path))} == {"rw-p"}, "private"
    model(torch.ones(2, 8)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert not torch.equal(model.get_parameter("weight"), drawn(workload).get_parameter("weight"))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_rank_that_does_not_keep_draws_and_writes_nothing(path: Path) -> None:
    workload = Small()
    assert_same(cached(workload, path, keep=False), drawn(workload))
    assert not path.parent.exists()


def cut_to(share: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return damage


def changed(**tensors: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    """Write the file anew, with some of its tensors changed."""

    def damage(path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        found = {name: one.clone() for name, one in load_file(path).items()}
        for part, change in tensors.items():
            found |= {name: change(one) for name, one in found.items() if name.startswith(part)}
        save_file(found, path, metadata=metadata)

    return damage


def of_another_model(path: Path) -> None:
    path.unlink()
    write(path, torch.nn.Linear(9, 9))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(cut_to(0.0), id="empty"),
        pytest.param(cut_to(0.1), id="a tenth is left"),
        pytest.param(cut_to(0.5), id="half is left"),
        pytest.param(cut_to(0.99), id="the end is lost"),
        pytest.param(lambda path: path.write_bytes(bytes(path.stat().st_size)), id="zeros"),
        pytest.param(lambda path: path.write_bytes(os.urandom(4000)), id="noise"),
        pytest.param(lambda path: save_file({"weight": torch.ones(1)}, path), id="other content"),
        pytest.param(of_another_model, id="another model's"),
        pytest.param(changed(random=torch.zeros_like), id="no random state"),
        pytest.param(changed(parameter=lambda one: one.half()), id="another precision"),
        pytest.param(changed(parameter=lambda one: one.int()), id="whole numbers"),
    ],
)
def test_damaged_file_is_removed_and_drawn_again(
    path: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    workload = Small()
    wanted = cached(workload, path)
    damage(path)
    capsys.readouterr()
    assert_same(cached(workload, path), wanted)
    assert capsys.readouterr().err.count("removed, and drawn again") == 1
    assert workload.draws == 2
    assert_same(cached(workload, path), wanted)
    assert workload.draws == 2, "the file was not written again"
    assert capsys.readouterr().err == ""


def test_workload_that_reads_its_weights_is_drawn(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Small, "reads_a_weight", True)
    workload = Small()
    wanted, after = drawn(workload), torch.rand(3)
    for _ in range(2):
        assert_same(cached(workload, path), wanted)
        assert torch.equal(torch.rand(3), after)


def full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(tensors: Any, file: Path, metadata: Any) -> None:
        file.write_bytes(b"some of it")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(initial_weights, "save_file", save)


def nearly_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))


def larger_than_the_cache(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initial_weights, "LIMIT_BYTES", 100)


def unwritable_cache(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.write_text("a file where the folder would be")


@pytest.mark.parametrize(
    "hinder", [full_disk, nearly_full_disk, larger_than_the_cache, unwritable_cache]
)
def test_weights_that_cannot_be_kept_are_drawn_with_one_line(
    path: Path,
    hinder: Callable[[Path, pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hinder(path, monkeypatch)
    workload = Small()
    assert_same(cached(workload, path), drawn(workload))
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("initial weights small.safetensors: not kept: ")
    left = {file.name for file in path.parent.glob("*")} if path.parent.is_dir() else set()
    assert left <= {".lock"}


def test_weights_are_not_kept_while_another_launch_writes(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.parent.mkdir()
    workload = Small()
    with FileLock(path.parent / ".lock"):
        assert_same(cached(workload, path), drawn(workload))
    assert capsys.readouterr().err.count("not kept: another launch is writing") == 1
    assert not path.exists()
    cached(workload, path)
    assert path.exists()


def test_file_used_longest_ago_makes_room_and_stays_valid_where_it_is_mapped(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [path.with_name(f"{number}.safetensors") for number in range(3)]
    for age, file in enumerate(files):
        write(file, torch.nn.Linear(64, 64))
        os.utime(file, (1000.0 + age, 1000.0 + age))
    (path.parent / ".9.safetensors.123").write_text("left by a process that was killed")
    kept = read(files[0])
    assert kept is not None
    weight = kept.parameters["weight"].detach().clone()
    monkeypatch.setattr(initial_weights, "LIMIT_BYTES", 3 * files[0].stat().st_size)
    write(path, torch.nn.Linear(64, 64))
    left = {file.name for file in path.parent.iterdir()}
    assert left == {"0.safetensors", "2.safetensors", "small.safetensors", ".lock"}, (
        "0.pt was read last, 1.pt never"
    )
    os.utime(files[0], (1.0, 1.0))
    write(path.with_name("last.safetensors"), torch.nn.Linear(64, 64))
    assert not files[0].exists()
    assert torch.equal(kept.parameters["weight"], weight)
