"""Three launchers, one result; and what is measured is the same to the byte each time."""

import dataclasses
import json

import pytest

from tests.launch.conftest import ROOT, TOY, available
from zerogate.metrics.table import METRICS, metric_named
from zerogate.session.judge import judge
from zerogate.verdicts.invariants import judge_learned, judge_same

PORTABLE = [name for name, metric in METRICS.items() if metric.scope == "portable"]


SHARDING = ("zero1", "zero2", "zero2_config_file", "zero3", "fsdp2")
OFFLOADING = ("zero2_offload", "zero3_offload", "fsdp2_offload")


def portable(measurement):
    return {name: measurement.value(name) for name in PORTABLE if name in measurement.names}


@pytest.mark.parametrize("strategy", ["ddp", "zero2", "fsdp2"])
def test_launchers_give_equal_portable_metrics_and_environment(launches, strategy):
    cell = dataclasses.replace(TOY, strategy=strategy)
    found, environments = {}, {}
    for launcher in ("forkserver", "torchrun", "accelerate"):
        session = launches.session(launcher)
        available(session, cell)
        launches.fault("environment")
        found[launcher] = portable(session.measure(cell))
        environments[launcher] = json.loads((launches.data / "environment1.json").read_text())
        assert environments[launcher]["ACCELERATE_MIXED_PRECISION"] == "no"
    assert found["torchrun"] == found["forkserver"]
    assert found["accelerate"] == found["forkserver"]
    assert environments["torchrun"] == environments["accelerate"]
    assert environments["forkserver"] == environments["accelerate"]


@pytest.mark.parametrize("strategy", ["zero2", "zero2_offload", "fsdp2_offload"])
def test_portable_metrics_are_equal_in_repeated_sessions(launches, strategy):
    cell = dataclasses.replace(TOY, strategy=strategy)
    first = launches.session()
    available(first, cell)
    again = launches.session()
    assert portable(first.measure(cell)) == portable(again.measure(cell))


def test_every_strategy_is_in_parity_with_ddp(launches):
    session = launches.session()
    for strategy in (*SHARDING, *OFFLOADING):
        cell = dataclasses.replace(TOY, strategy=strategy)
        available(session, cell)
        for name in ("loss", "gradient_norm", "learning_rate"):
            verdict = judge_same(metric_named(name), session.measure(cell), session.measure(TOY))
            assert verdict.status == "ok", verdict


@pytest.mark.parametrize("strategy", ["ddp", "zero2", "zero2_config_file"])
def test_learning_rate_of_every_step_follows_schedule(launches, strategy):
    """With accumulation, and over the ends of epochs, where a step is easily taken twice."""
    from zerogate.protocol.schedule import schedule

    cell = dataclasses.replace(TOY, strategy=strategy)
    session = launches.session()
    available(session, cell)
    measurement = session.measure(cell)
    recipe, found = measurement.settings, measurement.series("learning_rate")
    assert len(found) == recipe["epochs"] * 6
    assert found == pytest.approx(
        [
            recipe["learning_rate"]
            * schedule(step, warmup_steps=recipe["warmup_steps"], total_steps=len(found))
            for step in range(len(found))
        ]
    )


def test_quality_without_learning_is_regressed(launches):
    cell = dataclasses.replace(TOY, workload="deberta_mrpc")
    session = launches.session(root=ROOT, learning_rate=0.0)
    available(session, cell)
    assert judge_learned(session.measure(cell), metric_named("accuracy")).status == "regressed"
    assert judge_learned(session.measure(cell), metric_named("f1")).status == "regressed"


def test_real_data_is_marked_real_and_has_own_baselines(launches, tmp_path):
    from datasets import Dataset

    rows = Dataset.from_json(str(ROOT / "workloads" / "data" / "mrpc" / "train.jsonl"))
    folder = tmp_path / "data" / "mrpc"
    folder.mkdir(parents=True)
    rows.select(range(32)).to_parquet(folder / "train-00000-of-00001.parquet")
    rows.select(range(32, 45)).to_parquet(folder / "validation-00000-of-00001.parquet")
    cell = dataclasses.replace(TOY, workload="deberta_mrpc")
    session = launches.session(root=ROOT, data_folder=tmp_path / "data")
    available(session, cell)
    measurement = session.measure(cell)
    assert measurement.settings["data_origin"] == "real"
    assert measurement.value("samples_per_epoch") == 32
    # Real and generated data have baselines apart.
    assert session.baseline_path(cell).parent.name == "cpu-gloo-real-data"
    assert judge(session, cell, "accuracy").status == "no_baseline"
