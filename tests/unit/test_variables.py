"""What ranks find in their environment: no secret, and one word on CUDA's allocator."""

from __future__ import annotations

from pathlib import Path

import pytest

from zerogate.environment.variables import ALLOCATOR_SETTINGS, rank_environment
from zerogate.protocol.redact import is_secret, masked


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "GITHUB_TOKEN", "apikey"],
)
def test_secret_name_is_detected(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "HOME", "MONKEY", "KEYBOARD"])
def test_ordinary_name_is_not_secret(name: str) -> None:
    assert not is_secret(name)


def test_secret_values_are_masked_by_variable_names() -> None:
    environment = {"HF_TOKEN": "hf_abcdef", "HOME": "where-I-live", "X_TOKEN": "1"}
    assert masked("Bearer hf_a_token", {"HF_TOKEN": "hf_a_token\n"}) == "Bearer <HF_TOKEN>"
    text = masked("401 for hf_abcdef in where-I-live, 1 time", environment)
    assert text == "401 for <HF_TOKEN> in where-I-live, 1 time"


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({}, "expandable_segments:False"),
        ({"PYTORCH_ALLOC_CONF": "a:1"}, "a:1"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "b:2"}, "b:2"),
        ({"PYTORCH_ALLOC_CONF": "a:1", "PYTORCH_CUDA_ALLOC_CONF": "b:2"}, "b:2"),
    ],
    ids=["none", "new name", "old name", "both"],
)
def test_rank_environment_has_one_allocator_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: dict[str, str], value: str
) -> None:
    for name in ALLOCATOR_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name, setting in given.items():
        monkeypatch.setenv(name, setting)
    found = rank_environment("gpu", tmp_path)
    assert {name: found[name] for name in ALLOCATOR_SETTINGS if name in found} == {
        "PYTORCH_CUDA_ALLOC_CONF": value
    }


def test_rank_environment_has_secrets_only_for_downloads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdef")
    monkeypatch.setenv("WANDB_API_KEY", "w_abcdef")
    assert "hf_abcdef" not in rank_environment("cpu", tmp_path).values()
    gpu = rank_environment("gpu", tmp_path)
    assert gpu["HF_TOKEN"] == "hf_abcdef"
    assert "w_abcdef" not in gpu.values()


def test_rank_environment_puts_overlay_first_on_python_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "mine")
    environment = rank_environment("cpu", tmp_path, tmp_path / "over")
    assert environment["PYTHONPATH"] == f"{tmp_path / 'over'}:mine"
    assert "ZEROGATE_OVERLAY" not in rank_environment("cpu", tmp_path)


def test_environment_of_card_keeps_cuda_untouched_before_fork(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    found = rank_environment("gpu", tmp_path)
    assert found["PYTORCH_NVML_BASED_CUDA_CHECK"] == "1"
    assert found["DS_ACCELERATOR"] == "cuda"
    assert found["OPENBLAS_NUM_THREADS"] == "1"
