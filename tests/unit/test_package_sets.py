"""``--good`` and ``--bad``: a release, pins, or files of them."""

from __future__ import annotations

from importlib.metadata import version as installed
from pathlib import Path

import pytest

from zerogate.config.strategy_file import ConfigError
from zerogate.releases.package_sets import one_package, several_packages


def test_one_package_gives_requirements_of_chosen_release() -> None:
    sides = one_package("deepspeed", ["0.17.5"], ["0.18.2"], ["transformers==5.1.0"])
    assert sides.moved([]) == ("transformers==5.1.0", "deepspeed==0.17.5")
    assert sides.moved(["deepspeed"]) == ("transformers==5.1.0", "deepspeed==0.18.2")
    assert sides.with_releases({"deepspeed": "0.18.0"})[-1] == "deepspeed==0.18.0"


def test_several_packages_complete_missing_pin_from_installed() -> None:
    sides = several_packages(["deepspeed==0.17.5"], ["deepspeed==0.18.2", "accelerate==1.10.0"], [])
    assert sides.good == {"accelerate": installed("accelerate"), "deepspeed": "0.17.5"}
    assert sides.bad == {"accelerate": "1.10.0", "deepspeed": "0.18.2"}
    assert sides.moved(["accelerate"]) == ("accelerate==1.10.0", "deepspeed==0.17.5")


def test_several_packages_read_pip_freeze_files(tmp_path: Path) -> None:
    common = (
        f"# made by pip\n\n-e git+https://host/us.git@1#egg=us\npytest=={installed('pytest')}\n"
    )
    (tmp_path / "old.txt").write_text(f"{common}Deep_Speed==0.17.5\nninja==1.11.1\n")
    other = "ninja==9 ; sys_platform == 'win32'\r\ndeep-speed==0.18.2 --hash=sha256:00\r\n"
    (tmp_path / "new.txt").write_bytes(f"\ufeff{common}{other}ninja==1.11.1\n".encode())
    sides = several_packages([str(tmp_path / "old.txt")], [str(tmp_path / "new.txt")], [])
    assert (sides.good, sides.bad) == ({"deep-speed": "0.17.5"}, {"deep-speed": "0.18.2"})
    assert sides.both == ("ninja==1.11.1",), "the same on both sides, and not as installed"


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        (["0.17.5"], ["0.18.2"], "--good: '0.17.5' is neither a pin nor a file"),
        (["ds==1"], ["ds>=2"], "--bad: 'ds>=2' is neither a pin nor a file"),
        ([""], ["ds==1"], "--good: '' is neither a pin nor a file"),
        (["ds==1"], ["ds==1"], "--bad: the same packages as --good"),
        (["ds==1"], ["ds==x"], "--bad: 'ds==x' is neither a pin nor a file"),
        (["ds==1"], ["ds[x]==2"], "--bad: 'ds\\[x\\]==2' has an extra"),
        (["ds==1", "ds==2"], ["ds==3"], "--good: ds is both 1 and 2"),
        (["ds==0.18"], ["ds==0.18.0"], "--bad: the same packages as --good"),
        (["ds==1"], ["other==1"], "other is not in that set, and not installed"),
    ],
)
def test_several_packages_with_invalid_pins_raise_config_error(
    good: list[str], bad: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        several_packages(good, bad, [])


def test_several_packages_from_unusable_files_raise_config_error(tmp_path: Path) -> None:
    old, new, junk = (tmp_path / name for name in ("old", "new", "junk"))
    old.write_text("ds==1\n-r more.txt\n")
    new.write_text("ds==2\n")
    junk.write_bytes(b"\xe9\xff")
    for good, bad, message in [
        (old, new, "--good: '-r more.txt' is not a pin"),
        (new, old, "--bad: '-r more.txt' is not a pin"),
        (junk, new, "junk' is neither a pin nor a file that can be read"),
        (tmp_path, new, "is neither a pin nor a file that can be read"),
    ]:
        with pytest.raises(ConfigError, match=message):
            several_packages([str(good)], [str(bad)], [])


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        (["1", "2"], ["3"], "--good: given 2 times; expected one release of ds"),
        (["ds==1"], ["3"], "--good: 'ds==1' is not a version"),
        (["3"], ["3"], "--bad: 3 is --good too"),
    ],
)
def test_one_package_with_invalid_releases_raises_config_error(
    good: list[str], bad: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        one_package("ds", good, bad, [])
