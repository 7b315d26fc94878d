"""Batch-size searches of several cells side by side, each on devices of its own (``--jobs``).

A launcher ends every process that appeared during its launch, so one process cannot run two launches.
Each cell gets a controller of its own instead (``session.search_cell``), which sees only the cell's
devices. It leaves its launches in the report folder. The session finds them there, like those of an
interrupted run, and then measures speed, which they cannot tell. Meanwhile it launches nothing.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from zerogate.config.text import one_line
from zerogate.config.validation import to_json
from zerogate.devices.capacity import Capacity, available, needs
from zerogate.devices.cards import cuda_devices
from zerogate.devices.leases import Lease, Leases, fit_beside_another
from zerogate.launch import process_tree
from zerogate.launch.errors import LauncherFailedError, ended_how
from zerogate.protocol.atomic_write import write_text
from zerogate.protocol.cell import Cell
from zerogate.protocol.job import BatchKind
from zerogate.protocol.prctl import adopt_orphans
from zerogate.session.search_cell import SearchRequest, request_path
from zerogate.session.session import Session

CLOSE_SECONDS = 3 * process_tree.GRACE_SECONDS
"""Time that controllers have to end their ranks before they are killed."""

CONTROLLER = ("-m", "zerogate.session.search_cell")
"""Arguments of Python that start a controller; the folder with its request follows."""

Kinds = tuple[BatchKind, ...]


def search_side_by_side(session: Session, searches: Mapping[Cell, Kinds]) -> None:
    """Carry out those of ``searches`` that can run at the same time as another one.

    What they leave is not judged here. The session itself makes every launch that they could not make.
    """
    room = available(session.options.report_folder)
    alone = {
        cell: _lease(session, cell) for cell in searches if not session.setup.unavailable(cell)
    }
    fitting = fit_beside_another(alone, cuda_devices(), room)
    if not fitting:
        if len(alone) > 1:
            session.setup.tell("no two searches fit on this machine at once; they run one by one")
        return
    session.runner.share()
    running = _Controllers(session, {cell: searches[cell] for cell in fitting}, room)
    try:
        running.run(fitting)
    finally:
        running.close()


def _lease(session: Session, cell: Cell) -> Lease:
    """Return what the cell has when it runs alone."""
    workload = session.options.project.workload_file(cell.workload)
    room = needs(workload, session.setup.strategy(cell), cell.world_size)
    return Lease(session.setup.assignment(cell).devices, room)


@dataclass(frozen=True, slots=True)
class _Controller:
    """A running controller of one cell, and what is leased to it."""

    cell: Cell
    lease: Lease
    process: subprocess.Popen[bytes]


class _Controllers:
    """The controllers that run now, at most ``--jobs`` of them."""

    def __init__(self, session: Session, searches: Mapping[Cell, Kinds], room: Capacity) -> None:
        self._session = session
        self._searches = searches
        self._leases = Leases(cuda_devices(), room)
        self._running: list[_Controller] = []
        self._output = selectors.DefaultSelector()
        adopt_orphans()  # Ranks of a controller that was killed.
        self._before = process_tree.children()

    def run(self, alone: Mapping[Cell, Lease]) -> None:
        """Run a controller for each cell, as soon as there is a lease for it, and wait for all."""
        waiting = dict(alone)
        while waiting or self._running:
            for cell in list(waiting):
                if len(self._running) == self._session.options.jobs:
                    break
                if lease := self._leases.take(waiting[cell]):
                    del waiting[cell]
                    self._start(cell, lease)
            self._listen()

    def _start(self, cell: Cell, lease: Lease) -> None:
        tell = self._session.setup.tell
        try:
            uuids = [card.uuid for card in lease.devices]
            self._session.runner.idle.await_idle(uuids, lambda text: tell(text, cell))
            process = self._popen(cell, uuids)
        except (LauncherFailedError, OSError) as error:
            tell(f"{error}; searched alone later", cell)
            self._leases.give_back(lease)
            return
        self._session.runner.helpers.add(process.pid)
        controller = _Controller(cell, lease, process)
        self._running.append(controller)
        assert process.stdout is not None
        self._output.register(process.stdout, selectors.EVENT_READ, controller)

    def _popen(self, cell: Cell, uuids: list[str]) -> subprocess.Popen[bytes]:
        options = self._session.options
        folder = options.report_folder / "side-by-side" / cell.id
        folder.mkdir(parents=True, exist_ok=True)
        request = SearchRequest(
            options=options, cell=cell, kinds=self._searches[cell], parent_pid=os.getpid()
        )
        write_text(request_path(folder), to_json(request).decode())
        # All ranks share the host's cores. DeepSpeed's Adam runs there.
        threads = len(os.sched_getaffinity(0)) // (options.jobs * cell.world_size)
        with (folder / "controller.log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, *CONTROLLER, str(folder)],
                env={"OMP_NUM_THREADS": str(max(1, threads))}
                | os.environ
                | {"CUDA_VISIBLE_DEVICES": ",".join(uuids)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,  # A buffer would hide lines from the selector.
                start_new_session=True,  # Ctrl-C reaches the session alone, which ends them.
            )

    def _listen(self) -> None:
        """Wait for lines of progress and tell them. A controller without any more has ended."""
        if not self._running:
            return
        for key, _ in self._output.select():
            controller: _Controller = key.data
            assert controller.process.stdout is not None
            if line := controller.process.stdout.readline():
                text = one_line(line.decode(errors="replace").strip())
                self._session.setup.tell(text, controller.cell)
            else:
                self._end(controller)

    def _end(self, controller: _Controller) -> None:
        code = controller.process.wait()
        self._forget(controller)
        # What a killed controller left is this process's now, and would stay on the devices.
        left = process_tree.children() - self._before
        left -= {*process_tree.descendants(one.process.pid for one in self._running)}
        process_tree.end(left)
        self._leases.give_back(controller.lease)
        if code:
            how = f"the search ended ({ended_how(code)}); searched alone later"
            self._session.setup.tell(how, controller.cell)

    def _forget(self, controller: _Controller) -> None:
        assert controller.process.stdout is not None
        self._running.remove(controller)
        self._output.unregister(controller.process.stdout)
        controller.process.stdout.close()

    def close(self) -> None:
        """End the controllers that still run, and all that they started."""
        pids = {one.process.pid for one in self._running}
        running = [process for process in process_tree.children() if process.pid in pids]
        process_tree.end(running, grace_seconds=CLOSE_SECONDS)
        while left := process_tree.children() - self._before:
            process_tree.end(left)
        for controller in list(self._running):
            controller.process.wait()
            self._forget(controller)
        self._output.close()
