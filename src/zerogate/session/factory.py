"""Opening of sessions: one for a pytest run, and a second one for another environment."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from zerogate.config.options import Options
from zerogate.config.strategy_file import ConfigError
from zerogate.environment.requirements import check_requirement
from zerogate.launch.command import CommandLauncher
from zerogate.launch.forkserver import ForkserverLauncher
from zerogate.launch.launcher import COMMAND_LAUNCHERS, Launcher
from zerogate.session.progress import Progress, ProgressUpdate
from zerogate.session.runner import LaunchHook
from zerogate.session.session import Session


def open_session(
    options: Options,
    *,
    launch_hook: LaunchHook,
    progress: Progress,
    save: Callable[[Session], object],
) -> Session:
    """Return a session that calls ``save`` whenever a cell is done or failed. Launches nothing."""

    def progress_and_save(update: ProgressUpdate) -> None:
        progress(update)
        if update.state != "started":
            # Saved now, so that no measurement is lost if a later cell or this process fails. If it
            # cannot be written, the end of the session reports that.
            with suppress(OSError):
                save(session)

    other = None
    if options.against:
        theirs = replace(
            options,
            packages=options.against,
            against=(),
            report_folder=options.report_folder / "against",
        )
        label = ", ".join(options.against)
        other = Session(
            theirs,
            launchers=_launchers(theirs.report_folder),
            launch_hook=launch_hook,
            progress=lambda update: progress(replace(update, text=f"{update.text} ({label})")),
        )
    session = Session(
        options,
        launchers=_launchers(options.report_folder),
        launch_hook=launch_hook,
        progress=progress_and_save,
        against=other,
    )
    return session


def join_session(options: Options, folder: Path, progress: Progress) -> Session:
    """Return a session that launches for the run of another process, which shares its report folder.

    ``folder`` is for the logs of its launchers. Raises ConfigError, OSError, ValueError.
    """
    session = Session(options, launchers=_launchers(folder), progress=progress)
    session.setup.lay_over()
    session.runner.join()
    return session


def _launchers(folder: Path) -> dict[str, Callable[[], Launcher]]:
    """Return how to make each of LAUNCHERS, by its name. The fork server's log goes to ``folder``."""
    commands = {name: partial(CommandLauncher, name) for name in COMMAND_LAUNCHERS}
    return {"forkserver": partial(ForkserverLauncher, folder), **commands}


def prepare_environments(session: Session) -> None:
    """Lay the packages of both sessions over, and resume interrupted runs. Raises ConfigError."""
    for option, one in (("--with", session), ("--against", session.against)):
        if one is None:
            continue
        try:
            for text in one.options.packages:
                check_requirement(text)
            one.setup.lay_over()
        except ConfigError as error:
            raise ConfigError(f"{option}: {error}") from None
        try:
            one.options.report_folder.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{option}: {error.filename}: {error.strerror}; its launches are kept there; remove it"
            ) from None
        if session.options.resume:
            one.runner.resume()
