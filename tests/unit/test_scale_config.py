"""The cpu tier's change to a DeepSpeed config: everything in elements shrinks with the model."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from zerogate.worker.scale_config import place_on_disk, scale_bytes, scale_deepspeed

FILES = sorted((Path(__file__).parents[2] / "configs" / "deepspeed").glob("*.json"))


def scaled(
    zero: dict[str, Any], *, ratio: float = 0.01, largest_parameter: int = 1000, **config: Any
) -> dict[str, Any]:
    return scale_deepspeed(
        {"zero_optimization": zero} | config,
        ratio=ratio,
        largest_parameter=largest_parameter,
        scratch_folder="/scratch",
    )


@pytest.mark.parametrize(
    ("given", "ratio", "expected"),
    [
        pytest.param(200_000_000, 0.01, 2_000_000, id="as the model did"),
        pytest.param(2e8, 0.01, 2_000_000, id="a float becomes whole"),
        pytest.param(1000, 0.0995, 96, id="to a multiple of DeepSpeed's alignment"),
        pytest.param(1000, 1e-9, 8, id="but not to nothing"),
        pytest.param("auto", 0.01, "auto", id="auto is Accelerate's to fill in"),
    ],
)
def test_bucket_size_is_scaled_with_model(given: Any, ratio: float, expected: Any) -> None:
    found = scaled({"stage": 2, "reduce_bucket_size": given}, ratio=ratio)
    size = found["zero_optimization"]["reduce_bucket_size"]
    assert (size, type(size)) == (expected, type(expected))


def test_missing_size_is_scaled_from_deepspeed_default() -> None:
    zero = scaled({"stage": 3})["zero_optimization"]
    assert zero["reduce_bucket_size"] == zero["allgather_bucket_size"] == 5_000_000
    assert zero["stage3_prefetch_bucket_size"] == 500_000
    assert zero["stage3_param_persistence_threshold"] == 1000
    assert zero["sub_group_size"] == 10_000_000


@pytest.mark.parametrize(("stage", "expected"), [(1, False), (2, False), (3, True)])
def test_stage_3_sizes_are_set_only_in_stage_3(stage: int, expected: bool) -> None:
    zero = scaled({"stage": stage})["zero_optimization"]
    assert any(name.startswith("stage3_") for name in zero) == expected


@pytest.mark.parametrize("name", ["fp16", "bf16", "amp"])
def test_half_precision_section_is_removed(name: str) -> None:
    assert name not in scaled({"stage": 2}, **{name: {"enabled": True}})


def test_unscaled_settings_are_kept() -> None:
    others = {"train_batch_size": "auto", "optimizer": {"type": "AdamW"}, "aio": {"queue_depth": 8}}
    found = scaled({"stage": 2, "overlap_comm": True, "round_robin_gradients": True}, **others)
    assert {name: found[name] for name in others} == others
    assert found["zero_optimization"]["stage"] == 2
    assert found["zero_optimization"]["overlap_comm"] is True
    assert found["zero_optimization"]["round_robin_gradients"] is True


@pytest.mark.parametrize("name", ["offload_optimizer", "offload_param"])
@pytest.mark.parametrize(
    "section", [{"device": "cpu", "pin_memory": True}, {"device": "cpu"}, {"device": "none"}]
)
def test_offload_memory_is_pinned_as_on_card(name: str, section: dict[str, Any]) -> None:
    assert scaled({"stage": 3, name: section})["zero_optimization"][name] == section


@pytest.mark.parametrize(
    ("section", "elements"),
    [
        pytest.param({}, 1_000_000, id="DeepSpeed's own"),
        pytest.param({"buffer_size": 2e8}, 2_000_000, id="as the model did"),
        pytest.param({"buffer_size": 50_000}, 1000, id="but no less than the largest parameter"),
    ],
)
def test_nvme_parameter_offload_is_scaled_and_moved_to_scratch(
    section: dict[str, Any], elements: int
) -> None:
    on_disk = {"device": "nvme", "nvme_path": "/mnt/of/somebody", "buffer_count": 5}
    found = scaled({"stage": 3, "offload_param": on_disk | section})
    assert found["zero_optimization"]["offload_param"] == {
        "device": "nvme",
        "nvme_path": "/scratch",
        "buffer_count": 5,
        "buffer_size": elements,
    }


def test_nvme_optimizer_offload_has_no_buffer_size() -> None:
    on_disk = {"device": "nvme", "nvme_path": "auto", "buffer_count": 4}
    found = scaled({"stage": 3, "offload_optimizer": on_disk})["zero_optimization"]
    assert found["offload_optimizer"] == on_disk | {"nvme_path": "/scratch"}


def test_place_on_disk_changes_only_path_and_buffer_size() -> None:
    config = json.loads((FILES[0].parent / "zero3_nvme.json").read_text())
    found = place_on_disk(config, largest=90_000_000, folder="/scratch")
    param = config["zero_optimization"]["offload_param"]
    changed = param | {"nvme_path": "/scratch", "buffer_size": 100_000_000}
    assert found["zero_optimization"]["offload_param"] == changed
    wider = place_on_disk(config, largest=196_761_600, folder="/scratch")["zero_optimization"]
    assert wider["offload_param"]["buffer_size"] == 196_761_600
    assert {name: found[name] for name in found if name != "zero_optimization"} == {
        name: config[name] for name in config if name != "zero_optimization"
    }


def test_absent_offload_is_not_added() -> None:
    assert not {"offload_optimizer", "offload_param"} & set(scaled({"stage": 3}))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scale_deepspeed_leaves_input_config_unchanged(path: Path) -> None:
    config = json.loads(path.read_text())
    before = copy.deepcopy(config)
    scale_deepspeed(config, ratio=0.01, largest_parameter=1000, scratch_folder="/scratch")
    assert config == before


def test_scale_bytes_returns_whole_bytes() -> None:
    assert scale_bytes(1000, ratio=0.0125) == 12
    assert isinstance(scale_bytes(1000, ratio=0.0125), int)
