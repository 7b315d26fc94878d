"""Tests of the emulated device, in a process of their own: registering it changes the whole process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest
import torch
from hypothesis import Phase, settings

from zerogate.devices.host import native_folder
from zerogate.worker import emulated_device, native_library
from zerogate.worker.native_library import LibraryUnavailableError, NativeLibrary

# A failure says which tensor it was; looking for a smaller one takes minutes.
PHASES = [Phase.explicit, Phase.generate]
settings.register_profile("gate", max_examples=8, deadline=None, derandomize=True, phases=PHASES)
settings.register_profile("look", max_examples=1_000, deadline=None, database=None)
settings.load_profile("gate")


@pytest.fixture(scope="session")
def library_file() -> Path:
    """The device, compiled, where launches keep it too."""
    try:
        return native_library.build(native_folder(Path(platformdirs.user_cache_dir("zerogate"))))
    except native_library.BuildFailedError:
        raise
    except LibraryUnavailableError as error:  # No compiler: the message says what to install.
        pytest.skip(str(error))


@pytest.fixture(scope="session", autouse=True)
def library(library_file: Path) -> NativeLibrary:
    """The device of this process, with its pools and counts."""
    torch.set_num_threads(1)  # Sums are then the same on both sides.
    loaded = NativeLibrary(library_file, devices=2)
    emulated_device.register(loaded)
    return loaded


@pytest.fixture(autouse=True)
def _seeded(library: NativeLibrary) -> Iterator[None]:
    torch.manual_seed(0)
    yield
    library.device.set_budget(0)
