"""What the system refuses ends one launch, and is called what it is."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from records import a_cell

from zerogate.launch.errors import (
    DiskFailedError,
    LauncherFailedError,
    LaunchFailedError,
    name_disk_failure,
    name_launcher_failure,
)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        pytest.param(errno.ENOSPC, DiskFailedError, id="full"),
        pytest.param(errno.EROFS, DiskFailedError, id="read-only"),
        pytest.param(errno.EAGAIN, LauncherFailedError, id="no more processes"),
        pytest.param(errno.EPIPE, LauncherFailedError, id="a server that is gone"),
    ],
)
def test_os_error_becomes_launch_error_of_its_kind(
    tmp_path: Path, number: int, kind: type[LaunchFailedError]
) -> None:
    cell = a_cell()
    with (
        pytest.raises(kind) as caught,
        name_launcher_failure(cell, "pytest"),
        name_disk_failure(cell, tmp_path, "pytest"),
    ):
        raise OSError(number, "refused")
    assert caught.value.summary.startswith(f"{cell.id}: {tmp_path}: refused; ")
    assert caught.value.command == "pytest"


def test_launcher_error_gets_cell_in_summary() -> None:
    with pytest.raises(LauncherFailedError) as caught, name_launcher_failure(a_cell(), "pytest"):
        raise LauncherFailedError("fork server: it has ended", detail="why", log="a.log")
    assert caught.value.summary == f"{a_cell().id}: fork server: it has ended"
    assert (caught.value.detail, caught.value.log) == ("why", "a.log")
