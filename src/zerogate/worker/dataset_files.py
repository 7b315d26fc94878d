"""Reader of a data set's own files: parquet, JSON lines or text, laid out as the hub ships them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset

READERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".txt": "text"}


def split_files(folder: Path, split: str) -> list[Path]:
    """Return the files of one split below ``folder``, sorted by path.

    Names are like ``train-00000-of-00001.parquet`` (glue, wikitext), ``…_train.parquet`` in ``train/``
    (MuDoConv), ``wiki.train.raw.txt`` or ``train.jsonl``. Raises FileNotFoundError if there is none,
    ValueError if formats are mixed.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in READERS and _is_split(path.relative_to(folder), split)
    )
    if not files:
        raise FileNotFoundError(
            f"{folder}: no file of the {split!r} split; expected {split!r} in the file's name and "
            f"an ending like {', '.join(READERS)}; download the data set as the hub ships it"
        )
    suffixes = {path.suffix for path in files}
    if len(suffixes) > 1:
        raise ValueError(
            f"{folder}: the {split!r} split mixes {', '.join(sorted(suffixes))}; "
            "expected one format; keep one and remove the others"
        )
    return files


def _is_split(path: Path, split: str) -> bool:
    words = path.as_posix().lower().replace("-", ".").replace("_", ".").replace("/", ".")
    names = {split, "valid", "dev"} if split == "validation" else {split}
    return not names.isdisjoint(words.split("."))


def read_split(
    folder: Path, split: str, columns: Sequence[str], limit: int | None = None
) -> Dataset:
    """Return the named columns of one split, in file order; at most ``limit`` rows.

    Raises FileNotFoundError if the split has no files, ValueError if they lack a column (the message
    names it) or mix formats.
    """
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    files = split_files(folder, split)
    reader = {"parquet": Dataset.from_parquet, "json": Dataset.from_json, "text": Dataset.from_text}
    dataset = reader[READERS[files[0].suffix]](
        [str(path) for path in files], keep_in_memory=True, cache_dir=None
    )
    missing = [name for name in columns if name not in dataset.column_names]
    if missing:
        raise ValueError(
            f"{files[0]}: no column {', '.join(map(repr, missing))}; expected {', '.join(columns)}, "
            f"found {', '.join(dataset.column_names)}; use the data set's files as the hub ships them"
        )
    dataset = dataset.select_columns(list(columns))
    return dataset if limit is None else dataset.select(range(min(limit, len(dataset))))
