"""The corpora: what is in git is what the generator writes, and the hub's own files are read."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

ROOT = Path(__file__).parents[2]
DATA = ROOT / "workloads" / "data"

MRPC: dict[str, list[Any]] = {
    "sentence1": [
        "The bank will open a branch in Lorne .",
        "Rain fell all day in Granby .",
    ],
    "sentence2": ["A branch will open in Lorne .", "Granby saw no rain at all ."],
    "label": [1, 0],
    "idx": [0, 1],
}
DIALOGUE: dict[str, list[Any]] = {
    "text": ["Hello , who are you ?", "Do you like tea ?"],
    "reply": ["A friend .", "Yes !"],
}
ARTICLE = ["", " = Lorne = ", "", " " + "a village on the river . " * 60]


@pytest.fixture(autouse=True)
def _import_from_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])


def write_parquet(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(dict(columns)), path)


def write_json_lines(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_committed_corpora_equal_generator_output(tmp_path: Path) -> None:
    from workloads.data import generate

    generate.write(tmp_path)
    written = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.*")}
    committed = {
        path.relative_to(DATA): path.read_bytes()
        for path in DATA.rglob("*.*")
        if path.suffix in {".jsonl", ".txt"}
    }
    assert written == committed


def test_corpora_are_small() -> None:
    for folder in ("mrpc", "mudoconv", "wikitext2"):
        assert sum(path.stat().st_size for path in (DATA / folder).iterdir()) < 300_000


def test_mrpc_corpus_is_balanced_and_has_real_sentence_length() -> None:
    lines = (DATA / "mrpc" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert sum(row["label"] for row in rows) * 2 == len(rows)
    words = [len(row[name].split()) for row in rows for name in ("sentence1", "sentence2")]
    assert 20 <= sum(words) / len(words) <= 28


def test_mudoconv_corpus_has_real_conversation_length() -> None:
    lines = (DATA / "mudoconv" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert all(len(row["source"].split()) <= 110 for row in rows)
    assert all(8 <= len(row["target"].split()) <= 40 for row in rows)


def test_mrpc_files_of_glue_are_read(tmp_path: Path) -> None:
    from zerogate.worker.dataset_files import read_split

    for split in ("train", "validation", "test"):
        write_parquet(tmp_path / "mrpc" / f"{split}-00000-of-00001.parquet", MRPC)
    rows = read_split(tmp_path, "validation", ["sentence1", "sentence2", "label"])
    assert rows["label"][:] == [1, 0]
    assert rows["sentence2"][0] == MRPC["sentence2"][0]


def test_json_lines_split_is_read_up_to_limit(tmp_path: Path) -> None:
    from zerogate.worker.dataset_files import read_split

    write_json_lines(tmp_path / "train.jsonl", MRPC)
    assert read_split(tmp_path, "train", ["label"], limit=1)["label"][:] == [1]


@pytest.mark.parametrize("form", ["parquet", "txt"])
def test_wikitext_files_of_hub_are_read(tmp_path: Path, form: str) -> None:
    from zerogate.worker.dataset_files import read_split

    if form == "parquet":
        lines = [line + "\n" if line else line for line in ARTICLE]
        write_parquet(tmp_path / "train-00000-of-00001.parquet", {"text": lines})
    else:
        (tmp_path / "wiki.train.raw.txt").write_text("\n".join(ARTICLE) + "\n", encoding="utf-8")
    rows = read_split(tmp_path, "train", ["text"])
    assert [text.strip() for text in rows["text"]] == [line.strip() for line in ARTICLE]


@pytest.mark.parametrize("write", [write_parquet, write_json_lines])
def test_mudoconv_columns_are_first_two_of_any_name(tmp_path: Path, write: Any) -> None:
    from workloads.blenderbot_mudoconv import first_columns
    from zerogate.worker.dataset_files import read_split

    suffix = "parquet" if write is write_parquet else "jsonl"
    for split in ("train", "validation"):
        for source in ("convai2", "wow"):
            write(tmp_path / "data" / split / f"{source}_{split}.{suffix}", DIALOGUE)
    assert first_columns(tmp_path) == ("text", "reply")
    rows = read_split(tmp_path, "train", ["text", "reply"])
    assert rows["reply"][:] == DIALOGUE["reply"] * 2


def test_mudoconv_with_one_column_is_refused(tmp_path: Path) -> None:
    from workloads.blenderbot_mudoconv import first_columns

    write_json_lines(tmp_path / "train.jsonl", {"text": ["Hello"]})
    with pytest.raises(ValueError, match="1 named columns; expected the context's and the reply's"):
        first_columns(tmp_path)


def test_missing_column_is_named_in_one_line(tmp_path: Path) -> None:
    from zerogate.worker.dataset_files import read_split

    write_json_lines(tmp_path / "train.jsonl", {"sentence1": ["Rain ."], "label": [1]})
    with pytest.raises(ValueError, match=r"no column 'sentence2'; expected .*, found") as error:
        read_split(tmp_path, "train", ["sentence1", "sentence2", "label"])
    assert "\n" not in str(error.value)


def test_missing_split_is_named(tmp_path: Path) -> None:
    from zerogate.worker.dataset_files import read_split

    with pytest.raises(FileNotFoundError, match="no file of the 'train' split"):
        read_split(tmp_path, "train", ["text"])
