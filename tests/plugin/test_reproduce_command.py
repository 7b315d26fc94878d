"""The command that a failed launch prints is one that zerogate accepts, with the same meaning."""

from __future__ import annotations

import shlex

import pytest

from zerogate.config.options import Options
from zerogate.config.project import Project
from zerogate.plugin.command_line import refuse_lost_root
from zerogate.plugin.read_options import read_options
from zerogate.plugin.selection import selected_cells
from zerogate.protocol.cell import Cell

CELL = Cell(workload="tiny_words", strategy="zero2", world_size=4, tier="cpu")

LAUNCH_OPTIONS = {
    "launcher": "torchrun",
    "device_memory_bytes": 24 * 2**30,
    "packages": ("deepspeed==0.18.2", "accelerate<1.12,>1"),
    "against": ("torch @ https://example.org/a b",),
    "share_device": True,
    "tests": ("mine", "my tests/test_words.py::test_memory[zero2]"),
    "pyargs": True,
}
"""A value for each option that a launch depends on, other than its default."""


def parsed(pytester: pytest.Pytester, command: str) -> Options:
    program, *words = shlex.split(command)
    assert program == "pytest"
    config = pytester.parseconfig(*words, "-p", "no:cacheprovider")
    refuse_lost_root(config)
    return read_options(config, Project(pytester.path))


@pytest.mark.parametrize("name", LAUNCH_OPTIONS)
def test_printed_command_has_same_option(project, pytester, name):
    options = Options(root=project.path, report_folder=project.path, **{name: LAUNCH_OPTIONS[name]})
    found = parsed(pytester, options.command(CELL))
    assert getattr(found, name) == LAUNCH_OPTIONS[name]
    assert selected_cells(found, ["cpu"]) == [CELL]


def test_printed_command_has_data_folder(project, pytester):
    data = project.path / "real data"
    (data / "words").mkdir(parents=True)
    options = Options(root=project.path, report_folder=project.path, data_folder=data)
    assert parsed(pytester, options.command(CELL)).data_folder == data


@pytest.mark.parametrize(
    "size", [24 * 2**30, 25_769_803_777, 80 * 10**9, 512 * 2**20, 2**10, 1, 3 * 2**40]
)
def test_printed_device_memory_is_accepted_to_the_byte(project, pytester, size):
    options = Options(root=project.path, report_folder=project.path, device_memory_bytes=size)
    assert parsed(pytester, options.command(CELL)).device_memory_bytes == size


def test_every_option_of_a_launch_is_in_the_command(project, pytester):
    """An option that changes launches and is missing from ``command`` reproduces something else."""
    from dataclasses import fields

    not_of_a_launch = {
        "root", "report_folder", "cache_folder", "baseline_folder", "repeats", "deadline_seconds",
        "resume", "update_baselines", "reason", "missing_baseline", "jobs", "require_cells",
    }  # fmt: skip
    by_cell = {"workloads", "strategies", "world_sizes"}
    known = {*LAUNCH_OPTIONS, "data_folder", *not_of_a_launch, *by_cell}
    assert {field.name for field in fields(Options)} == known
