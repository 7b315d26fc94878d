"""Names of files in the cache of initial weights: they change with all that decides the weights."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from records import a_job

from zerogate.worker.initial_weights import weights_file

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "workloads"
    for name in ("gpt2xl_wikitext2.py", "models/gpt2_xl.json", "parts/architecture.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "workloads" / name, folder / name)
    (folder / "data").mkdir()
    return folder


def file_of(project: Path, pretrained: Path | None = None, version: int = 1, **changes: Any) -> Any:
    job = dataclasses.replace(
        a_job(project),
        workload_file=str(project / "gpt2xl_wikitext2.py"),
        weights_folder=str(project.parent / "cache"),
    )
    workload: Any = SimpleNamespace(version=version, pretrained=pretrained)
    return weights_file(dataclasses.replace(job, **changes), workload)


def edit(name: str) -> Callable[[Path, pytest.MonkeyPatch], None]:
    def change(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = project / name
        path.write_text(path.read_text() + "\n" if path.exists() else "new")

    return change


def installed(package: str, record: str, origin: str | None = None) -> Any:
    def change(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        own = importlib.metadata.distribution
        made = SimpleNamespace(
            read_text=lambda name: {"RECORD": record, "direct_url.json": origin}[name]
        )
        monkeypatch.setattr(
            importlib.metadata, "distribution", lambda name: made if name == package else own(name)
        )

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(edit("gpt2xl_wikitext2.py"), id="the workload"),
        pytest.param(edit("parts/architecture.py"), id="a module beside it"),
        pytest.param(edit("models/gpt2_xl.json"), id="the model's config"),
        pytest.param(installed("torch", "torch/nn/init.py,sha256=1,2"), id="torch"),
        pytest.param(installed("transformers", "transformers/a.py,sha256=1,2"), id="transformers"),
    ],
)
def test_change_of_what_decides_the_weights_names_another_file(
    project: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[..., None]
) -> None:
    before = file_of(project)
    assert file_of(project) == before
    change(project, monkeypatch)
    assert file_of(project) != before


def test_seed_and_version_are_in_the_name_and_data_are_not(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file_of(project)
    assert before.parent == project.parent / "cache"
    assert len({before, file_of(project, seed=26), file_of(project, version=2)}) == 3
    edit("data/train.txt")(project, monkeypatch)
    assert file_of(project) == before


def test_published_weights_and_editable_installs_are_not_cached(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert file_of(project, weights_folder=None) is None
    assert file_of(project, pretrained=project) is None
    in_place = '{"url": "file:///src", "dir_info": {"editable": true}}'
    installed("transformers", "transformers.pth,sha256=1,2", in_place)(project, monkeypatch)
    assert file_of(project) is None
