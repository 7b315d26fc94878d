"""Real launches that something happens to: a project with a toy workload, and who does it."""

from __future__ import annotations

import pytest

from tests.launch.conftest import forkserver, launches  # noqa: F401 (fixtures)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--length",
        choices=("short", "long"),
        default="short",
        help="short: some happenings once; long: over a hundred, under every launcher",
    )


def is_long(config: pytest.Config) -> bool:
    return bool(config.getoption("length") == "long")
