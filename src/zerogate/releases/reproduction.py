"""Reproduction of a change without zerogate, by a script that is run with both package sets."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerogate.config.options import Options
from zerogate.config.strategy_file import ConfigError
from zerogate.config.text import last_line, one_line
from zerogate.launch.errors import LauncherFailedError
from zerogate.launch.locks import lock_devices
from zerogate.launch.process_tree import run_helper
from zerogate.protocol.atomic_write import write_json, write_text
from zerogate.protocol.cell import Cell
from zerogate.protocol.job import job_path
from zerogate.releases.evaluate import laid_over
from zerogate.releases.evaluation import Evaluation, changes
from zerogate.releases.repro_script import script, shown
from zerogate.session.progress import Progress
from zerogate.session.session import Session

DESCRIBE_SECONDS = 300.0
RUN_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Printed:
    """The line that the script printed; if none, ``line`` says why and ``value`` is None."""

    line: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Reproduction:
    """The script's text, and the lines it printed with the good and the bad packages."""

    text: str
    good: Printed
    bad: Printed
    differs: bool


def reproduce(
    good: Sequence[str],
    bad: Sequence[str],
    cell: Cell,
    metric: str,
    *,
    title: str,
    file: str = "reproduce.py",
    options: Options,
    progress: Progress,
) -> Reproduction | None:
    """Write ``file`` into the report folder, run it with both package sets, and compare.

    Returns None for a metric that no script can show. Raises ConfigError if the cell cannot be
    described.
    """
    if not (by := shown(metric)):
        return None
    with laid_over(good, options, progress) as session:
        text = script(cell, _described(session, cell), metric, title)
        path = options.report_folder / file
        write_text(path, text)
        left = _run(path, cell, session)
    with laid_over(bad, options, progress) as session:
        right = _run(path, cell, session)
    return Reproduction(text, left, right, _differ(by, cell, left, right))


def _described(session: Session, cell: Cell) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        path = job_path(Path(scratch))
        write_json(path, session.runner.job(cell, Path(scratch)))
        command = [sys.executable, "-m", "zerogate.worker.description", str(path)]
        try:
            done = run_helper(command, session.setup.environment(cell), DESCRIBE_SECONDS)
        except subprocess.TimeoutExpired:
            raise ConfigError(
                f"{cell.id}: cannot be described in {DESCRIBE_SECONDS:.0f} s"
            ) from None
    if done.returncode:
        raise ConfigError(f"{cell.id}: cannot be described: {last_line(done.stderr)}")
    description: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return description


def _run(path: Path, cell: Cell, session: Session) -> Printed:
    """Run the script with the command in its first lines."""
    setup = session.setup
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(cell.world_size), str(path)]

    def tell(text: str) -> None:
        setup.tell(text, cell)

    tell(f"reproduce.py with {', '.join(session.options.packages)}")
    cards = setup.assignment(cell).uuids
    try:
        with lock_devices(cards or ["cpu"], tell), tempfile.TemporaryDirectory() as scratch:
            done = run_helper(command, setup.environment(cell), RUN_SECONDS, folder=Path(scratch))
    except subprocess.TimeoutExpired:
        return Printed(f"it did not end within {RUN_SECONDS:.0f} s")
    except LauncherFailedError as error:
        return Printed(f"it was not run: {error.summary}")
    if done.returncode:
        return Printed(f"it failed: {_error(done.stderr)}")
    line = next((one for one in reversed(done.stdout.splitlines()) if one.startswith('{"')), "")
    if not line:
        return Printed("it printed nothing")
    (value,) = json.loads(line).values()
    return Printed(line, value)


def _differ(by: str, cell: Cell, good: Printed, bad: Printed) -> bool:
    if good.value is None or bad.value is None:
        return False
    if by in ("bytes", "collectives"):
        return bool(good.value != bad.value)
    left, right = (
        Evaluation(packages=(), values={cell.id: {by: _frozen(one.value)}}) for one in (good, bad)
    )
    return bool(changes(left, right))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _error(messages: str) -> str:
    """Return the first error of a rank, not torchrun's summary of it."""
    lines = [line.strip() for line in messages.splitlines()]
    errors = [line for line in lines if "Error: " in line and "ChildFailedError" not in line]
    return one_line(errors[0]) if errors else last_line(messages)
