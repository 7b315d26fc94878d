"""Hooks of the pytest plugin: options, cells as parameters, fixtures, outcome words.

FAILED is a regression. ERROR is infrastructure (crash, hang, unexpected OOM, wrong configuration).
SKIPPED says why. Exit codes are pytest's own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zerogate.config.project import find_project
from zerogate.config.strategy_file import ConfigError
from zerogate.devices.cards import cuda_devices
from zerogate.plugin.closing import require_cells, write_everything
from zerogate.plugin.command_line import NO_PROJECT, add_options, refuse_lost_root, refuse_workers
from zerogate.plugin.gate import STATUS_PROPERTY
from zerogate.plugin.progress import TerminalProgress
from zerogate.plugin.read_options import prepare_folders, read_options
from zerogate.plugin.selection import selected_cells
from zerogate.plugin.side_by_side import refuse_jobs, search_beforehand
from zerogate.plugin.stash import (
    CLOSING_LINES,
    LAST_LINE,
    LOCK,
    OPTIONS,
    PROGRESS,
    SESSION,
    SKIP_REASONS,
)
from zerogate.protocol.cell import Cell
from zerogate.session.signals import finishing, interrupt_on_signals

if TYPE_CHECKING:
    from zerogate.session.session import Session
    from zerogate.verdicts.reference_results import ReferenceResults

pytest_plugins = ["zerogate.plugin.fixtures"]

ON_REQUEST = ("batch_size", "equivalence")
"""Markers whose tests run only if the command line names them: they take launches of their own."""


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from zerogate.plugin import hookspec

    pluginmanager.add_hookspecs(hookspec)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cpu: cells of the cpu tier (gloo, scale models)")
    config.addinivalue_line("markers", "gpu: cells of the gpu tier (CUDA, full size)")
    config.addinivalue_line(
        "markers",
        "compared_with(strategy): provides that strategy's measurement as ``other``; not for cells of "
        "that strategy itself",
    )
    config.addinivalue_line(
        "markers", "batch_size(kind): searches for the largest batch, of kind train or eval"
    )
    config.addinivalue_line(
        "markers", "equivalence: trains in another way that must give the same numbers"
    )
    config.addinivalue_line(
        "markers", "published(metric): only for cells of which others published that metric"
    )
    config.addinivalue_line("markers", "tiers(*names): only for cells of these tiers")
    config.addinivalue_line("markers", "strategies(*names): only for cells of these strategies")
    config.stash[SKIP_REASONS] = []
    refuse_lost_root(config)
    project = find_project(config.invocation_params.dir, config.rootpath)
    if project is not None:  # Elsewhere the plugin keeps quiet.
        refuse_workers(config)
        config.stash[OPTIONS] = read_options(config, project)


# Collecting


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" not in metafunc.fixturenames or OPTIONS not in metafunc.config.stash:
        return
    cells = selected_cells(metafunc.config.stash[OPTIONS])
    for marker in metafunc.definition.iter_markers("compared_with"):
        cells = [cell for cell in cells if cell.strategy not in marker.args]
    for marker in metafunc.definition.iter_markers("tiers"):
        cells = [cell for cell in cells if cell.tier in marker.args]
    for marker in metafunc.definition.iter_markers("strategies"):
        cells = [cell for cell in cells if cell.strategy in marker.args]
    metafunc.parametrize(
        "cell",
        [pytest.param(cell, id=cell.id, marks=getattr(pytest.mark, cell.tier)) for cell in cells],
        scope="session",
    )


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    # Before ``-m`` deselects them all: tests without a project have no cells, and so no tier.
    if OPTIONS not in config.stash and any(map(_needs_project, items)):
        raise pytest.UsageError(NO_PROJECT.format(config.invocation_params.dir))
    yield
    _prepare(config, items)


def _needs_project(item: pytest.Item) -> bool:
    return {"cell", "zerogate_session"} <= set(getattr(item, "fixturenames", ()))


def _prepare(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests that do not apply; read everything that the others need. Raises UsageError."""
    # A test for strategies that are not selected has no cells; pytest would report it as skipped.
    _deselect(config, items, lambda item: "cell" in _params(item) and not _cells([item]))
    if not _cells(items):
        return
    if not config.option.markexpr and not cuda_devices():
        # Without a named tier, only cells that this machine can run stay.
        _deselect(config, items, lambda item: item.get_closest_marker("gpu") is not None)
    named = f"{config.option.markexpr} {config.option.keyword} {config.args}"
    if config.stash[OPTIONS].device_memory_bytes is not None:
        named += " batch_size"
    for name in ON_REQUEST:
        if name not in named:
            _deselect(config, items, partial(_has, name))
    cells = _cells(items)
    refuse_jobs(config, cells)
    if config.option.collectonly:
        return
    config.stash[SESSION] = session = _open_session(config)
    config.stash[PROGRESS].total = len(cells)
    brought = {
        replace(cell, strategy=name)
        for item in items
        for marker in item.iter_markers("compared_with")
        for name in marker.args
        for cell in _cells([item])
    }
    from zerogate.session.factory import prepare_environments

    try:
        prepare_environments(session)
        for cell in cells | brought:
            session.setup.strategy(cell)
            session.baseline(cell)
        # Read now, even if they are only shown, so that a mistake is found before any launch.
        results = session.reference_results
        _deselect(config, items, lambda item: _unpublished(results, item))
        session.start_compiling(cells | brought)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None


def _unpublished(results: list[ReferenceResults], item: pytest.Item) -> bool:
    marker = item.get_closest_marker("published")
    return marker is not None and not any(
        marker.args[0] in found.values(cell) for found in results for cell in _cells([item])
    )


def _deselect(
    config: pytest.Config, items: list[pytest.Item], unwanted: Callable[[pytest.Item], bool]
) -> None:
    gone = [item for item in items if unwanted(item)]
    if gone:
        items[:] = [item for item in items if item not in gone]
        config.hook.pytest_deselected(items=gone)


def _has(marker: str, item: pytest.Item) -> bool:
    return item.get_closest_marker(marker) is not None


def _params(item: pytest.Item) -> dict[str, object]:
    spec = getattr(item, "callspec", None)
    return spec.params if spec else {}


def _cells(items: list[pytest.Item]) -> set[Cell]:
    params = (_params(item).get("cell") for item in items)
    return {cell for cell in params if isinstance(cell, Cell)}


def _open_session(config: pytest.Config) -> Session:
    from zerogate.report.results import write_results
    from zerogate.session.factory import open_session

    options = config.stash[OPTIONS]
    config.stash[LOCK] = prepare_folders(options)
    config.add_cleanup(interrupt_on_signals())
    config.stash[PROGRESS] = progress = TerminalProgress(config)
    config.pluginmanager.register(progress, "zerogate-progress")

    def launch(job: Any, folder: Path) -> Any:
        return config.hook.pytest_zerogate_launch(job=job, folder=folder)

    return open_session(options, launch_hook=launch, progress=progress.show, save=write_results)


# Running


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    search_beforehand(session)


# Reporting


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    why: Any = report.longrepr
    if report.skipped and report.when == "setup" and isinstance(why, tuple) and _cells([item]):
        item.config.stash[SKIP_REASONS].append(why[2].removeprefix("Skipped: "))
        # All tests of a cell have the same reason; the same location lets pytest show one line.
        why = (str(item.path.parent), None, why[2])
        report.longrepr = why
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(
    report: pytest.TestReport | pytest.CollectReport,
) -> tuple[str, str, str] | None:
    status = dict(getattr(report, "user_properties", [])).get(STATUS_PROPERTY)
    letter = {"passed": ".", "failed": "F", "skipped": "s"}.get(report.outcome)
    if status is None or letter is None or getattr(report, "when", "") != "call":
        return None
    if report.skipped:  # The reason has the word: pytest's summary gives all skips the first one's.
        return None
    return (report.outcome, letter, str(status)) if not hasattr(report, "wasxfail") else None


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    found = session.config.stash.get(SESSION, None)
    if found is not None:
        with finishing():
            try:
                # A mistake was found, or nothing ran: keep the last results.
                if found.measurements or found.errors:
                    write_everything(session, found, exitstatus)
            finally:
                # Last: a second Ctrl-C ends only the wait for ranks, which end anyway.
                found.close()
    options = session.config.stash.get(OPTIONS, None)
    if options is not None and options.require_cells:
        require_cells(session, _cells(session.items), set(found.measurements) if found else set())


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if CLOSING_LINES not in config.stash:
        return
    from zerogate.report.terminal import summary

    terminalreporter.section("zerogate")
    if found := config.stash.get(SESSION, None):
        terminalreporter.write(summary(found))
    for line in config.stash[CLOSING_LINES]:
        terminalreporter.write_line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    terminal: Any = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and LAST_LINE in config.stash:
        terminal.write_line(config.stash[LAST_LINE], red=True)
