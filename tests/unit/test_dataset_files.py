"""Which files of a data set are a split: the layouts that the hub ships."""

from __future__ import annotations

from pathlib import Path

import pytest

from zerogate.worker.dataset_files import split_files


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder: Path, split: str) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in split_files(folder, split)]


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        pytest.param(
            "mrpc/train-00000-of-00001.parquet", "mrpc/validation-00000-of-00001.parquet", id="glue"
        ),
        pytest.param("train/wow_train.parquet", "valid/wow_valid.parquet", id="MuDoConv"),
        pytest.param("wiki.train.raw.txt", "wiki.valid.raw.txt", id="wikitext's own"),
        pytest.param("train.jsonl", "dev.jsonl", id="dev"),
        pytest.param("TRAIN.json", "Validation.json", id="capitals"),
        pytest.param("data/train/part-0.parquet", "data/validation/part-0.parquet", id="folders"),
    ],
)
def test_split_is_found_by_name_in_path(tmp_path: Path, train: str, validation: str) -> None:
    make(tmp_path, train, validation, "test.parquet", "README.md", "trainer_state.json")
    assert found(tmp_path, "train") == [train]
    assert found(tmp_path, "validation") == [validation]


@pytest.mark.parametrize("name", ["pretrain.jsonl", "constrained.jsonl", "training.jsonl"])
def test_split_name_matches_whole_word_only(tmp_path: Path, name: str) -> None:
    make(tmp_path, "train.jsonl", name)
    assert found(tmp_path, "train") == ["train.jsonl"]


def test_parent_folder_of_data_set_does_not_name_split(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    make(folder, "validation.jsonl")
    with pytest.raises(FileNotFoundError):
        split_files(folder, "train")


def test_split_parts_are_sorted(tmp_path: Path) -> None:
    names = [f"train-0000{part}-of-00003.parquet" for part in range(3)]
    make(tmp_path, *reversed(names))
    assert found(tmp_path, "train") == names


@pytest.mark.parametrize("names", [[], ["test.jsonl"], ["train.csv"], ["train"]])
def test_missing_split_is_reported_with_folder_and_formats(
    tmp_path: Path, names: list[str]
) -> None:
    make(tmp_path, *names)
    with pytest.raises(
        FileNotFoundError, match=r"no file of the 'train' split.*\.parquet"
    ) as error:
        split_files(tmp_path, "train")
    assert str(error.value).startswith(f"{tmp_path}: ")


def test_split_with_mixed_formats_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "train.jsonl", "train-00000-of-00001.parquet", "validation.jsonl")
    with pytest.raises(ValueError, match=r"'train' split mixes \.jsonl, \.parquet"):
        split_files(tmp_path, "train")
    assert found(tmp_path, "validation") == ["validation.jsonl"]
