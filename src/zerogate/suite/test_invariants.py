"""Invariants: what must hold on any machine, and so needs no baseline."""

import pytest


# Not zero3 against zero2: its reduce bucket stays, 500 million elements by default, and of a model that
# is not much larger that is more than sharding saves (docs/model-states.md).
@pytest.mark.strategies("zero1", "zero2", "zero2_config_file", "zero3", "fsdp2")
@pytest.mark.compared_with("ddp")
def test_sharding_needs_less_than_ddp(gate, other):
    gate.below(other, "model_state_bytes")


@pytest.mark.strategies("zero3_nvme")
@pytest.mark.compared_with("zero3")
def test_offload_to_disk_needs_less_than_zero3(gate, other):
    gate.below(other, "model_state_bytes")


@pytest.mark.strategies("zero2_offload")
@pytest.mark.compared_with("zero2")
def test_optimizer_offload_moves_bytes_to_the_host(gate, other):
    gate.offloads(other)


@pytest.mark.strategies("zero3_offload")
@pytest.mark.compared_with("zero3")
def test_parameter_offload_moves_bytes_to_the_host(gate, other):
    gate.offloads(other)


@pytest.mark.strategies("fsdp2_offload")
@pytest.mark.compared_with("fsdp2")
def test_fsdp2_offload_moves_bytes_to_the_host(gate, other):
    gate.offloads(other)


@pytest.mark.tiers("cpu")
@pytest.mark.strategies("zero3_nvme")
@pytest.mark.compared_with("zero3")
def test_offload_to_disk_takes_from_the_device_what_the_papers_say(gate, other):
    gate.offloads(other)


@pytest.mark.tiers("cpu")
@pytest.mark.strategies("zero2_offload", "zero3_offload", "zero3_nvme", "fsdp2_offload")
def test_what_is_offloaded_crosses_every_step(gate):
    gate.moves("copied_to_device_bytes", "copied_to_host_bytes")


@pytest.mark.strategies("zero3_nvme")
def test_what_is_offloaded_moves(gate):
    gate.moves("disk_read_bytes", "disk_written_bytes")


def test_every_sample_is_trained_on_once_an_epoch(gate):
    gate.needs("samples_missed", "samples_repeated")


def test_every_sample_is_scored_once(gate):
    gate.needs("eval_samples_miscounted")


def test_memory_does_not_grow(gate):
    gate.does_not_grow()


def test_the_learning_rate_follows_its_schedule(gate):
    gate.follows_schedule()


def test_loss_is_finite_and_falls(gate):
    gate.falls("loss")


# These two in fp32 and without dropout, as parity.
@pytest.mark.tiers("cpu")
@pytest.mark.equivalence
def test_accumulation_changes_nothing(gate, other_accumulation):
    gate.equivalent("accumulation", other_accumulation)


@pytest.mark.tiers("cpu")
@pytest.mark.equivalence
def test_the_number_of_ranks_changes_nothing(gate, one_rank):
    gate.equivalent("one_rank", one_rank)
