"""Weights from the cache in real ranks: to the last bit, training goes as it does from drawn ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.launch.conftest import ROOT, TOY, available
from zerogate.launch.errors import RankCrashedError

REFUSE = f"{Path(__file__).parent / 'no_drawing.py'}::refuse"
"""Ranks with it do not draw weights, but fail."""


def trained(launches, strategy, folder=None, **asked):
    """What each rank saw, and the launch's log."""
    cell = dataclasses.replace(TOY, strategy=strategy, workload=asked.pop("workload", TOY.workload))
    session = launches.session(weights_folder=str(folder) if folder else None, **asked)
    available(session, cell)
    ranks = session.runner.launch(cell, 0, 1).ranks
    logs = sorted(session.options.report_folder.rglob("rank*.log"))
    return [(one.loss, one.gradient_norm, one.quality) for one in ranks], "".join(
        log.read_text() for log in logs
    )


# The two ways to begin: from a whole model (zero2 and fsdp2 too), and from one that is built sharded.
@pytest.mark.parametrize("strategy", ["ddp", "zero3"])
def test_training_is_the_same_without_with_empty_and_with_filled_cache(
    launches, tmp_path, strategy
):
    launches.fault("dropout")  # It draws from each rank's generator, which drawing weights moved.
    wanted, _ = trained(launches, strategy)
    folder = tmp_path / "cache"
    for preload in ((), (REFUSE,)):  # Into the empty cache, and from the filled one.
        found, log = trained(launches, strategy, folder, preload=preload)
        assert found == wanted
        assert "initial weights" not in log, "nothing went wrong with the cache"
    [file] = folder.glob("*.safetensors")

    # The file was what they trained from: with other weights they do something else.
    with safe_open(file, framework="pt") as kept:
        metadata = kept.metadata()
    tensors = load_file(file)
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            tensors[name] = tensor * 1.5
    save_file(tensors, file, metadata=metadata)
    assert trained(launches, strategy, folder)[0] != wanted


@pytest.mark.parametrize("workload", ["deberta_mrpc", "blenderbot_mudoconv", "gpt2xl_wikitext2"])
def test_sharded_workload_begins_with_the_same_weights(launches, tmp_path, workload):
    asked = {"root": ROOT, "workload": workload, "steps": 2}
    reports = (tmp_path / name for name in ("none", "empty", "filled"))

    def begun(folder):
        report = next(reports)
        return trained(launches, "zero3", folder, report_folder=report, **asked)[0]

    wanted = begun(None)
    folder = tmp_path / "cache"
    assert [begun(folder), begun(folder)] == [wanted] * 2
    assert len(list(folder.glob("*.safetensors"))) == 1


def test_ranks_that_must_not_draw_cannot_do_without_the_cache(launches):
    """Else the preload would prove nothing."""
    with pytest.raises(RankCrashedError, match="a weight was drawn"):
        trained(launches, "zero3", preload=(REFUSE,))


def test_ranks_draw_again_where_the_file_is_damaged(launches, tmp_path):
    folder = tmp_path / "cache"
    wanted, _ = trained(launches, "zero3", folder)
    [file] = folder.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    found, log = trained(launches, "zero3", folder)
    assert found == wanted
    assert "removed, and drawn again" in log
    assert file.exists()
