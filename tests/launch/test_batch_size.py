"""The largest batch, found by launches: exact, and running out leaves nothing behind."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest

from tests.launch.conftest import TOY, available
from zerogate.launch.errors import ConfigurationWrongError, OutOfMemoryError
from zerogate.protocol.job import ProbeRequest
from zerogate.session.batch_size import find_batch_size
from zerogate.session.judge import judge

MEMORY = 2**33  # Of the full-size toy; a thousandth of it is for the scale model.


@pytest.mark.parametrize("strategy", ["ddp", "zero2", "fsdp2"])
def test_found_batch_size_fits_and_one_more_sample_does_not(launches, strategy):
    cell = dataclasses.replace(TOY, strategy=strategy)
    session = launches.session(device_memory_bytes=MEMORY)
    available(session, cell)
    found, _ = find_batch_size(partial(session.runner.probe, cell), "train", None)
    assert found.size > 1
    assert found.budget_bytes == 8_589_935
    assert found.headroom_bytes >= 0
    for index in range(3):
        fits = ProbeRequest(kind="train", sizes=(found.size,))
        [one] = session.runner.probe(cell, fits, 10 + index).ranks[0].probed
        assert one.peak_allocated_bytes == found.budget_bytes - found.headroom_bytes
        with pytest.raises(OutOfMemoryError) as error:
            session.runner.probe(
                cell, ProbeRequest(kind="train", sizes=(found.size + 1,)), 20 + index
            )
        assert error.value.record.probing == found.size + 1


def test_budget_below_model_size_gives_batch_size_zero_with_note(launches):
    session = launches.session(device_memory_bytes=2**24)
    available(session, TOY)
    found = session.batch_size(TOY, "train")
    assert (found.size, found.launches) == (0, 1)
    assert judge(session, TOY, "max_micro_batch_size").status == "no_baseline"
    assert "of a budget of 16777 bytes" in found.note


def test_probe_after_ten_ooms_of_one_rank_succeeds(launches):
    session = launches.session(device_memory_bytes=MEMORY)
    available(session, TOY)
    launches.fault("hoard")
    for index in range(10):
        with pytest.raises(OutOfMemoryError) as error:
            session.runner.probe(TOY, ProbeRequest(kind="train", sizes=(1,)), index)
        assert error.value.record.rank == 1
    launches.fault("")
    assert session.runner.probe(TOY, ProbeRequest(kind="train", sizes=(1,)), 10)


def test_budget_above_device_memory_is_configuration_error(launches):
    session = launches.session(device_memory_bytes=10**18)
    available(session, TOY)
    with pytest.raises(
        ConfigurationWrongError, match=r"--device-memory: 10{15} bytes .*has \d+ for"
    ):
        find_batch_size(partial(session.runner.probe, TOY), "train", None)


def test_dataset_below_one_global_batch_is_configuration_error(launches):
    session = launches.session(micro_batch_size=13)
    available(session, TOY)
    with pytest.raises(ConfigurationWrongError) as error:
        session.measure(TOY)
    assert "48 samples to train on; one optimizer step takes 52" in error.value.summary
    assert "(micro-batch 13 x accumulation 2 x 2 ranks)" in error.value.summary
