"""What the packages of the environment need in turn, and is not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from zerogate.environment.dependencies import unmet_below

Package = Callable[..., None]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """Install a package of that name and version that requires ``needs``."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def package(name: str, version: str, *needs: str) -> None:
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        lines = [
            f"Name: {name}",
            f"Version: {version}",
            *(f"Requires-Dist: {one}" for one in needs),
        ]
        (folder / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")

    return package


def unmet(root: str = "zg-root") -> list[tuple[str, str]]:
    return [(name, str(wanted)) for name, wanted in unmet_below(root)]


def test_unmet_below_with_all_installed_is_empty(package: Package) -> None:
    package("zg-root", "1", "zg-a>=1")
    package("zg-a", "1.5", "zg-b<2", "zg-root")
    package("zg-b", "1.0")
    assert unmet() == []


def test_unmet_below_lists_absent_and_outdated_packages(package: Package) -> None:
    package("zg-root", "1", "zg-a")
    package("zg-a", "1", "zg-b")
    package("zg-b", "1", "zg-c>=2", "zg_absent")
    package("zg-c", "1")
    assert unmet() == [("zg-b", "zg-c>=2"), ("zg-b", "zg_absent")]


def test_unmet_below_leaves_out_requirements_of_root(package: Package) -> None:
    package("zg-root", "1", "zg-a", "zg-absent")
    package("zg-a", "1", "zg-absent>=3")
    assert unmet() == []


def test_unmet_below_counts_only_requested_extras(package: Package) -> None:
    package("zg-root", "1", "zg-a[fast]")
    package(
        "zg-a",
        "1",
        'zg-fast; extra == "fast"',
        'zg-slow; extra == "slow"',
        "zg-no; python_version<'3'",
    )
    assert unmet() == [("zg-a", "zg-fast")]
