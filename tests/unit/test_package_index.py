"""Which releases there are, as pip's index tells."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from zerogate.config.strategy_file import ConfigError
from zerogate.releases import package_index
from zerogate.releases.package_index import releases


def test_releases_are_in_the_order_of_versions(pip: SimpleNamespace) -> None:
    assert releases("ds") == ["0.18.0", "0.18.2", "0.18.10", "0.19.0", "0.19.1"]
    assert releases("ds", first="0.18.1", last="0.19.0") == ["0.18.2", "0.18.10", "0.19.0"]


def test_none_of_these(pip: SimpleNamespace) -> None:
    with pytest.raises(
        ConfigError, match=r"ds: no release from 1 to the last; the index has 0\.18\.0"
    ):
        releases("ds", first="1")


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        ("", None, "--from: '' is no version"),
        ("0.19.1", "0.18.0", "--to: 0.18.0 is before --from 0.19.1"),
    ],
)
def test_versions_that_say_nothing(
    pip: SimpleNamespace, first: str, last: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        releases("ds", first=first, last=last)


@pytest.mark.parametrize("package", ["", "ds==0.18.0", "./ds"])
def test_what_is_no_packages_name(pip: SimpleNamespace, package: str) -> None:
    with pytest.raises(ConfigError, match="is no package's name"):
        releases(package)


def test_a_package_that_the_index_does_not_know(pip: SimpleNamespace) -> None:
    pip.stdout, pip.stderr = "", "WARNING: x\nERROR: No matching distribution found for ds\n"
    with pytest.raises(ConfigError, match=r"does not tell its releases .No matching distribution"):
        releases("ds")


def test_pip_that_hangs_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("pip", 120)

    monkeypatch.setattr(package_index, "run_helper", late)
    with pytest.raises(ConfigError, match="no answer"):
        releases("ds")
