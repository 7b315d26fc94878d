"""Packages laid over the environment: built once by pip, beside it, refused where they are no use."""

from __future__ import annotations

import importlib.util
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from zerogate.config.strategy_file import ConfigError
from zerogate.devices.host import native_folder
from zerogate.environment import overlay
from zerogate.environment.overlay import Overlay, lay_over
from zerogate.environment.requirements import check_requirement

NAME = "zerogate_tiny"
Wheels = Callable[..., Path]


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheels:
    """Make wheels that pip finds by name, and nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    def make(
        name: str = NAME, version: str = "1.0", code: str = "", needs: tuple[str, ...] = ()
    ) -> Path:
        path = folder / f"{name}-{version}-py3-none-any.whl"
        info = f"{name}-{version}.dist-info"
        metadata = [
            f"Name: {name}",
            f"Version: {version}",
            *(f"Requires-Dist: {one}" for one in needs),
        ]
        files = {
            f"{name}/__init__.py": code,
            f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", *metadata, ""]),
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        with zipfile.ZipFile(path, "w") as wheel:
            for file, text in files.items():
                wheel.writestr(file, text)
            wheel.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in files))
        return path

    return make


@pytest.fixture
def lay(tmp_path: Path) -> Callable[..., Overlay]:
    """Lay packages over; ``said`` is what the user is told meanwhile."""

    def lay(*asked: str, said: list[str] | None = None) -> Overlay:
        told = said if said is not None else []
        return lay_over(asked, tmp_path / "cache", told.append, imports=(NAME,))

    return lay


def kept(tmp_path: Path) -> list[str]:
    return sorted(
        path.name for path in (tmp_path / "cache" / "overlays").iterdir() if path.is_dir()
    )


def test_overlay_contains_package_that_environment_lacks(
    wheels: Wheels, lay: Callable[..., Overlay]
) -> None:
    wheels()
    overlay = lay(f"{NAME}==1.0")
    assert str(overlay) == "zerogate-tiny 1.0"
    assert (overlay.folder / NAME / "__init__.py").is_file()
    assert importlib.util.find_spec(NAME) is None


def test_overlay_name_lists_tested_package_and_counts_rest() -> None:
    packages = {"torch": "2.12.1", "nvidia-cublas": "13.1", "triton": "3.7"}
    assert str(Overlay(Path(), packages)) == "torch 2.12.1 and 2 more"
    assert str(Overlay(Path(), {"torch": "2.12.1"})) == "torch 2.12.1"


def test_overlay_of_same_requirement_is_built_once(
    wheels: Wheels, lay: Callable[..., Overlay]
) -> None:
    wheels()
    said: list[str] = []
    assert lay(f"{NAME}==1.0", said=said) == lay(f"{NAME}==1.0", said=said)
    assert said == [f"building the overlay of {NAME}==1.0"]


def test_overlay_with_missing_file_is_built_again(
    wheels: Wheels, lay: Callable[..., Overlay]
) -> None:
    """Ranks would import the environment's instead, and nobody would know."""
    wheels()
    first = lay(f"{NAME}==1.0")
    (first.folder / NAME / "__init__.py").unlink()
    again = lay(f"{NAME}==1.0")
    assert (again.folder / NAME / "__init__.py").is_file()


@pytest.mark.parametrize("content", ['{"folder": 5}', '{"folder": ".."}', "[]", "\xff"])
def test_overlay_request_file_with_invalid_content_is_ignored(
    wheels: Wheels, lay: Callable[..., Overlay], tmp_path: Path, content: str
) -> None:
    wheels()
    lay(f"{NAME}==1.0")
    (note,) = (tmp_path / "cache" / "overlays").glob("*.json")
    note.write_text(content, encoding="latin-1")
    assert lay(f"{NAME}==1.0").packages == {"zerogate-tiny": "1.0"}


@pytest.mark.parametrize(
    "sign", ["Retrying after connection broken by x", "No space left on device"]
)
def test_pip_failure_without_package_fault_is_not_invalid_overlay(
    lay: Callable[..., Overlay], monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    def failing(command: list[str], *_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(
            command, 1, "", f"{sign}\nERROR: No matching distribution"
        )

    monkeypatch.setattr(overlay, "run_helper", failing)
    with pytest.raises(ConfigError, match="pip could not do its work") as error:
        lay(f"{NAME}==1.0")
    assert not isinstance(error.value, overlay.InvalidOverlayError)


def test_version_range_is_resolved_again_for_each_overlay(
    wheels: Wheels, lay: Callable[..., Overlay]
) -> None:
    wheels()
    assert lay(f"{NAME}>=1").packages == {"zerogate-tiny": "1.0"}
    wheels(version="1.1")
    assert lay(f"{NAME}>=1").packages == {"zerogate-tiny": "1.1"}


def test_wheels_with_different_content_have_separate_overlays(
    wheels: Wheels, lay: Callable[..., Overlay]
) -> None:
    first = lay(str(wheels(code="a = 1")))
    second = lay(str(wheels(code="a = 2")))
    assert first.folder != second.folder
    assert (second.folder / NAME / "__init__.py").read_text() == "a = 2"


def test_overlay_includes_extras_of_dependency(wheels: Wheels, lay: Callable[..., Overlay]) -> None:
    wheels(needs=("zerogate_tools[fast]",))
    wheels(name="zerogate_tools", needs=("zerogate_third; extra == 'fast'", "no; extra == 'x'"))
    wheels(name="zerogate_third")
    assert set(lay(f"{NAME}==1.0").packages) == {
        "zerogate-tiny",
        "zerogate-tools",
        "zerogate-third",
    }


def test_overlay_includes_only_missing_dependencies(
    wheels: Wheels, lay: Callable[..., Overlay]
) -> None:
    wheels(
        needs=("zerogate_other==2", "pytest", "absent; python_version < '3'", "no; extra == 'x'")
    )
    wheels(name="zerogate_other", version="2", needs=("zerogate_third",))
    wheels(name="zerogate_third")
    assert set(lay(f"{NAME}==1.0").packages) == {
        "zerogate-tiny",
        "zerogate-other",
        "zerogate-third",
    }


def test_overlay_includes_dependency_installed_in_other_version(
    wheels: Wheels, lay: Callable[..., Overlay]
) -> None:
    wheels(needs=("pytest==0.1",))
    wheels(name="pytest", version="0.1")
    assert lay(f"{NAME}==1.0").packages["pytest"] == "0.1"


def test_uninstallable_requirement_is_invalid_with_pip_error(
    wheels: Wheels, lay: Callable[..., Overlay], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"^invalid: {NAME}==9: pip: No matching .*pip\.log"):
        lay(f"{NAME}==9")
    assert kept(tmp_path) == []


def test_unimportable_package_is_invalid_with_python_error(
    wheels: Wheels, lay: Callable[..., Overlay], tmp_path: Path
) -> None:
    wheels(code="raise RuntimeError('not with this torch')")
    with pytest.raises(
        ConfigError, match=f"cannot be imported with it: {NAME}: RuntimeError: not with"
    ):
        lay(f"{NAME}==1.0")
    assert kept(tmp_path) == []


@pytest.mark.parametrize("text", ["", "deepspeed=0.18", "==1", "./nowhere", "a b"])
def test_check_requirement_refuses_invalid_text(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is neither a requirement nor a file"):
        check_requirement(text)


@pytest.mark.parametrize(
    "text", ["deepspeed", "deepspeed==0.18.2", "a @ git+https://x.example/a@1", "accelerate<1.12"]
)
def test_check_requirement_accepts_pip_requirement(text: str) -> None:
    check_requirement(text)


BACKEND = r"""
import pathlib, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name, version = pathlib.Path("named").read_text().split()
    files = {
        f"{name}/__init__.py": "",
        f"{name}-{version}.dist-info/METADATA":
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{name}-{version}.dist-info/WHEEL":
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}-{version}.dist-info/RECORD": "",
    }
    wheel = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder, wheel), "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return wheel
"""


def checkout(folder: Path, version: str) -> None:
    """A folder that pip can install with nothing but itself."""
    folder.mkdir()
    (folder / "backend.py").write_text(BACKEND)
    (folder / "named").write_text(f"{NAME} {version}")
    system = ("requires = []", 'build-backend = "backend"', 'backend-path = ["."]')
    (folder / "pyproject.toml").write_text("\n".join(("[build-system]", *system, "")))


def test_overlay_of_folder_path_installs_folder_not_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheels: Wheels, lay: Callable[..., Overlay]
) -> None:
    wheels(version="1.0")
    checkout(tmp_path / NAME, version="99")
    monkeypatch.chdir(tmp_path)
    assert lay(f"./{NAME}").packages == {"zerogate-tiny": "99"}
    assert lay(str(tmp_path / NAME)).packages == {"zerogate-tiny": "99"}


def test_bare_name_means_package_and_is_refused_if_folder_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheels: Wheels, lay: Callable[..., Overlay]
) -> None:
    wheels()
    monkeypatch.chdir(tmp_path)
    check_requirement(NAME)
    (tmp_path / NAME).mkdir()
    assert lay(NAME).packages == {"zerogate-tiny": "1.0"}
    with pytest.raises(ConfigError, match=rf"\./{NAME} for the folder, or {NAME}==VERSION"):
        check_requirement(NAME)


def test_overlay_build_removes_leftovers_of_killed_session(
    wheels: Wheels, lay: Callable[..., Overlay], tmp_path: Path
) -> None:
    stale = tmp_path / "cache" / "overlays" / ".building-x"
    stale.mkdir(parents=True)
    wheels()
    lay(f"{NAME}==1.0")
    assert not stale.exists()


def test_compiled_ops_folder_is_separate_for_overlay_release(
    wheels: Wheels, tmp_path: Path
) -> None:
    """Two that share a folder break each other."""
    wheels(name="deepspeed", version="0.0.1")
    overlay = lay_over(["deepspeed==0.0.1"], tmp_path, lambda text: None, imports=("deepspeed",))
    own = native_folder(tmp_path)
    over = native_folder(tmp_path, overlay.folder)
    assert "deepspeed0.0.1" in over.name
    assert own != over
