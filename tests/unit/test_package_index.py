"""Which releases there are, as pip's index tells."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from zerogate.config.strategy_file import ConfigError
from zerogate.releases import package_index
from zerogate.releases.package_index import releases


def test_releases_are_sorted_by_version_and_limited_to_range(pip: SimpleNamespace) -> None:
    assert releases("ds") == ["0.18.0", "0.18.2", "0.18.10", "0.19.0", "0.19.1"]
    assert releases("ds", first="0.18.1", last="0.19.0") == ["0.18.2", "0.18.10", "0.19.0"]


def test_releases_in_empty_range_raise_config_error(pip: SimpleNamespace) -> None:
    with pytest.raises(
        ConfigError, match=r"ds: no release from 1 to the last; the index has 0\.18\.0"
    ):
        releases("ds", first="1")


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        ("", None, "--from: '' is not a version"),
        ("0.19.1", "0.18.0", "--to: 0.18.0 is before --from 0.19.1"),
    ],
)
def test_releases_with_invalid_range_raise_config_error(
    pip: SimpleNamespace, first: str, last: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        releases("ds", first=first, last=last)


@pytest.mark.parametrize("package", ["", "ds==0.18.0", "./ds"])
def test_releases_of_invalid_package_name_raise_config_error(
    pip: SimpleNamespace, package: str
) -> None:
    with pytest.raises(ConfigError, match="is not a package name"):
        releases(package)


def test_releases_of_package_unknown_to_index_raise_config_error(pip: SimpleNamespace) -> None:
    pip.stdout, pip.stderr = "", "WARNING: x\nERROR: No matching distribution found for ds\n"
    with pytest.raises(ConfigError, match=r"lists no releases .No matching distribution"):
        releases("ds")


def test_releases_after_pip_timeout_raise_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("pip", 120)

    monkeypatch.setattr(package_index, "run_helper", late)
    with pytest.raises(ConfigError, match="no answer"):
        releases("ds")
