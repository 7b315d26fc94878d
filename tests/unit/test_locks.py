"""One launch at a time on a device, between processes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from zerogate.launch.errors import LauncherFailedError
from zerogate.launch.locks import lock_devices

HOLDER = """
import sys
from zerogate.launch.locks import lock_devices
with lock_devices(sys.argv[1:], lambda text: print(text, flush=True)):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    """Another process that measures on devices 1 and 2."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, "1", "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_lock_of_other_devices_is_taken_without_waiting(holder: subprocess.Popen[str]) -> None:
    said: list[str] = []
    with lock_devices(["0", "3"], said.append):
        assert said == []


def test_lock_held_by_other_process_names_its_holder(holder: subprocess.Popen[str]) -> None:
    said: list[str] = []

    def notify(text: str) -> None:
        said.append(text)
        holder.kill()  # A lock ends with its holder, however that ends.

    with lock_devices(["2"], notify):
        assert said == [f"waiting for process {holder.pid} in {Path.cwd()}, which measures on 2"]


def test_locks_of_two_devices_are_taken_in_either_order() -> None:
    with lock_devices(["2", "1"], print):
        pass
    with lock_devices(["1", "2"], print):
        pass


def test_device_named_twice_is_locked_once() -> None:
    said: list[str] = []
    with lock_devices(["1", "1"], said.append):
        assert said == []


def test_lock_that_cannot_be_taken_is_error(tmp_path: Path) -> None:
    (tmp_path / "zerogate-locks" / "1.lock").mkdir(parents=True)
    with pytest.raises(LauncherFailedError, match="cannot be locked"), lock_devices(["1"], print):
        pass


def test_waiting_process_gets_lock_before_last_holder() -> None:
    """Also where the holder wants it again at once, as a session does between two launches."""
    with ExitStack() as ours:
        with lock_devices(["1"], print):
            waiter = ours.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", HOLDER, "1"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            assert waiter.stdout is not None
            assert waiter.stdout.readline().startswith("waiting for process")
        said: list[str] = []

        def notify(text: str) -> None:
            said.append(text)
            assert waiter.stdout is not None
            assert waiter.stdout.readline() == "held\n"
            waiter.kill()

        with lock_devices(["1"], notify):
            assert len(said) == 1
