"""Baseline files: written so that they are read back, read so that damage is found and named."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from damage import change, damaged, without
from hypothesis import given
from hypothesis import strategies as st
from records import PROVENANCE, a_measurement

from zerogate.config.strategy_file import ConfigError
from zerogate.verdicts.baselines import (
    BaselineFile,
    of_measurement,
    read_baselines,
    write_baselines,
)

NAME = "deberta_mrpc.json"
METRIC = ("cells", "zero2-w2", "metrics", "live_bytes")


def a_file() -> BaselineFile:
    cell = of_measurement(a_measurement(launches=3), PROVENANCE)
    return BaselineFile(
        schema_version=1, workload="deberta_mrpc", cells={"zero2-w2": cell, "ddp-w2": cell}
    )


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A baseline file as JSON has it; copy before you change it."""
    path = tmp_path_factory.mktemp("valid") / NAME
    write_baselines(path, a_file())
    return dict(json.loads(path.read_text()))


def refusal(path: Path, content: Any) -> str:
    """What is said of ``content`` (text, or JSON-able); one line that begins with the file."""
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError) as caught:
        read_baselines(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


# Writing


def test_baseline_file_is_read_back_as_written(tmp_path: Path) -> None:
    write_baselines(tmp_path / NAME, a_file())
    assert read_baselines(tmp_path / NAME) == a_file()


def test_baseline_file_rewritten_is_byte_identical(tmp_path: Path) -> None:
    first, second = tmp_path / "1" / NAME, tmp_path / "2" / NAME
    write_baselines(first, a_file())
    write_baselines(second, read_baselines(first))
    assert second.read_bytes() == first.read_bytes()


def test_baseline_file_bytes_do_not_depend_on_cell_order(tmp_path: Path) -> None:
    first, second = tmp_path / "1" / NAME, tmp_path / "2" / NAME
    write_baselines(first, a_file())
    cells = dict(reversed(a_file().cells.items()))
    write_baselines(second, BaselineFile(schema_version=1, workload="deberta_mrpc", cells=cells))
    assert second.read_bytes() == first.read_bytes()


def test_baseline_file_keeps_each_metric_on_one_line(tmp_path: Path) -> None:
    write_baselines(tmp_path / NAME, a_file())
    lines = (tmp_path / NAME).read_text().splitlines()
    entries = [line for line in lines if re.match(r'\s*"(loss|live_bytes)": \{.*\},?$', line)]
    assert len(entries) == 2 * len(a_file().cells)


# Reading


def test_absent_baseline_file_is_read_as_no_cells(tmp_path: Path) -> None:
    assert read_baselines(tmp_path / NAME).cells == {}
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        pytest.param(("cell",), {}, ["cell: unknown key"], id="unknown key"),
        pytest.param((*METRIC, "valeu"), 1, [".".join((*METRIC, "valeu")), "unknown"], id="deep"),
        pytest.param(
            (*METRIC, "value"), "many", [".".join((*METRIC, "value")), "'many'"], id="a word"
        ),
        pytest.param((*METRIC, "value"), True, [".".join((*METRIC, "value"))], id="a truth value"),
        pytest.param((*METRIC, "value"), None, [".".join((*METRIC, "value")), "None"], id="null"),
        pytest.param((*METRIC, "spread"), "0.1", [".".join((*METRIC, "spread"))], id="quoted"),
        pytest.param(
            (*METRIC, "spread"), math.nan, [".".join((*METRIC, "spread")), "finite"], id="NaN"
        ),
        pytest.param(
            (*METRIC, "value"), math.inf, [".".join((*METRIC, "value")), "inf"], id="infinite"
        ),
        pytest.param(
            (*METRIC, "value"), [1.0, math.nan], [".".join((*METRIC, "value"))], id="NaN in a row"
        ),
        pytest.param(
            ("cells", "zero2-w2", "provenance", "reason"),
            25,
            ["cells.zero2-w2.provenance.reason", "string", "25"],
            id="a number for a text",
        ),
        pytest.param(("cells", "zero2-w2"), [], ["cells.zero2-w2"], id="a list for a cell"),
        pytest.param(("schema_version",), 2, ["schema_version: 2", "1"], id="another schema"),
        pytest.param(("schema_version",), "1", ["schema_version: '1'"], id="quoted schema"),
        pytest.param(("schema_version",), True, ["schema_version"], id="a truth value for schema"),
        pytest.param(
            ("workload",), "gpt2xl_wikitext2", ["workload", "gpt2xl", "'deberta"], id="workload"
        ),
    ],
)
def test_baseline_file_with_wrong_value_names_key(
    valid: dict[str, Any], tmp_path: Path, keys: tuple[str, ...], value: Any, words: list[str]
) -> None:
    message = refusal(tmp_path / NAME, change(valid, keys, value))
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(("workload",), id="workload"),
        pytest.param(("cells", "zero2-w2", "settings"), id="settings"),
        pytest.param(("cells", "ddp-w2", "provenance", "canary_seconds"), id="canary"),
        pytest.param((*METRIC, "launches"), id="launches"),
    ],
)
def test_baseline_file_with_missing_key_names_key(
    valid: dict[str, Any], tmp_path: Path, keys: tuple[str, ...]
) -> None:
    assert f"{'.'.join(keys)}: missing" in refusal(tmp_path / NAME, without(valid, keys))


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        pytest.param((*METRIC, "spread"), 1e300, "its launches have", id="a spread without reason"),
        pytest.param((*METRIC, "value"), 1, "not the median", id="a value without launches"),
        pytest.param((*METRIC, "launches"), [], "launches: empty", id="no launches"),
        pytest.param(
            ("cells", "zero2-w2", "provenance", "canary_seconds"), -1.0, "more than 0", id="canary"
        ),
    ],
)
def test_baseline_file_with_inconsistent_numbers_is_refused(
    valid: dict[str, Any], tmp_path: Path, keys: tuple[str, ...], value: Any, words: str
) -> None:
    """A spread that nobody measured would admit any change."""
    message = refusal(tmp_path / NAME, change(valid, keys, value))
    assert words in message
    assert ".".join(keys[:-1]) in message


def test_baseline_file_with_invalid_cell_name_is_refused(
    valid: dict[str, Any], tmp_path: Path
) -> None:
    cells = valid["cells"]
    content = change(valid, ("cells",), {"zero2w2": cells["zero2-w2"]})
    assert "cells.zero2w2: not a cell; expected a name like zero2-w2" in refusal(
        tmp_path / NAME, content
    )


def test_baseline_file_without_schema_version_is_refused(
    valid: dict[str, Any], tmp_path: Path
) -> None:
    assert "schema_version" in refusal(tmp_path / NAME, without(valid, ("schema_version",)))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("<<<<<<< HEAD\n{}", id="a merge conflict"),
        pytest.param("[1]", id="a list"),
        pytest.param("null", id="null"),
        pytest.param('"text"', id="a text"),
        pytest.param('{"schema_version": 1,', id="cut off"),
        pytest.param("[" * 100_000, id="nested"),
    ],
)
def test_baseline_file_without_json_object_is_refused(tmp_path: Path, text: str) -> None:
    assert "not a JSON object" in refusal(tmp_path / NAME, text)


@pytest.mark.parametrize("name", ["int8_error", "float_share"])
def test_baseline_file_error_names_metric_called_like_type(
    valid: dict[str, Any], tmp_path: Path, name: str
) -> None:
    keys = ("cells", "zero2-w2", "metrics", name)
    assert ".".join(keys) in refusal(tmp_path / NAME, change(valid, keys, {"value": "many"}))


@given(data=st.data())
def test_damaged_baseline_file_is_refused_or_read_back(
    valid: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    text = data.draw(damaged(valid))
    path = tmp_path_factory.getbasetemp() / "damaged" / NAME
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    problem = ""
    try:
        write_baselines(path, found := read_baselines(path))
    except ConfigError as error:
        problem = str(error)
    if problem:
        assert problem.startswith(f"{path}: ")
        assert "\n" not in problem
    else:
        assert read_baselines(path) == found
