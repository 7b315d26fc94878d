"""What is counted is the same in every launch, and moves by as much as the stack was changed."""

from __future__ import annotations

import dataclasses

import pytest

from tests.faults import planting  # noqa: F401 (its faults register)
from tests.faults.fault import FAULTS
from tests.launch.conftest import TOY, available
from zerogate.session.runner import JobChanges


def measured(launches, strategy, *faults):
    cell = dataclasses.replace(TOY, strategy=strategy)
    session = launches.session(preload=tuple(FAULTS[name].preload for name in faults))
    available(session, cell)
    return session.measure(cell)


@pytest.mark.parametrize("strategy", ["ddp", "zero1", "fsdp2"])
def test_work_is_positive_and_leaks_and_sample_errors_are_zero(launches, strategy):
    found = measured(launches, strategy)
    assert found.scalar("all_reduce_calls") > 0
    assert found.scalar("all_reduce_payload_bytes") > 0
    assert found.scalar("operators") > 100
    assert found.scalar("flops") > 0
    assert found.scalar("model_state_bytes") > 0
    zero = ("leak_bytes_per_step", "samples_missed", "samples_repeated", "disk_read_bytes")
    for name in (*zero, "eval_samples_miscounted"):
        assert found.value(name) == 0, name


def test_what_is_offloaded_is_on_host_and_crosses_every_step(launches):
    kept, offloaded = measured(launches, "fsdp2"), measured(launches, "fsdp2_offload")
    on_device, on_host = "model_state_bytes", "host_state_bytes"
    states = kept.scalar(on_device) - offloaded.scalar(on_device)
    # Half of parameters, gradients and moments; all but those is the same, wherever it is.
    assert states >= 8 * kept.settings["parameters"]
    assert offloaded.scalar(on_host) - kept.scalar(on_host) >= states
    # Parameters go to the device, gradients come back.
    for name in ("copied_to_device_bytes", "copied_to_host_bytes"):
        moved = offloaded.scalar(name) - kept.scalar(name)
        assert moved >= 2 * kept.settings["parameters"]
    assert offloaded.value("host_leak_bytes_per_step") == 0


@pytest.mark.parametrize(
    ("strategy", "fault", "metric", "change"),
    [
        ("zero3", "one_more_all_gather_a_step", "all_gather_calls", 1),
        ("zero1", "leak_of_one_tensor_a_step", "leak_bytes_per_step", 4),
    ],
)
def test_metric_moves_by_exact_size_of_planted_fault(launches, strategy, fault, metric, change):
    before = measured(launches, strategy).scalar(metric)
    assert measured(launches, strategy, fault).scalar(metric) == before + change


def test_unsynchronised_sampler_misses_and_repeats_samples(launches):
    found = measured(launches, "ddp", "unsynchronised_sampler")
    assert found.scalar("samples_missed") > 0
    assert found.scalar("samples_repeated") == found.scalar("samples_missed")


def test_training_series_of_equal_global_batch_are_equal(launches):
    session = launches.session()
    available(session, TOY)
    own = session.measure(TOY)
    whole = session.variant(
        TOY, "whole", JobChanges(micro_batch_size=4, gradient_accumulation_steps=1)
    )
    alone = session.variant(
        dataclasses.replace(TOY, world_size=1), "alone", JobChanges(micro_batch_size=4)
    )
    for other in (whole, alone):
        steps = len(other.series("loss"))
        assert steps == 6
        for name in ("loss", "gradient_norm", "learning_rate"):
            assert other.series(name) == pytest.approx(own.series(name)[:steps], rel=1e-4)
