"""results.json: everything a session found. Every other output is made from the same values."""

from __future__ import annotations

import datetime
import math
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zerogate.devices.cards import cuda_devices, driver
from zerogate.devices.host import host_key
from zerogate.metrics.measurement import Measurement
from zerogate.metrics.model_states import StateBytes, paper_states
from zerogate.protocol.atomic_write import write_json
from zerogate.protocol.cell import Cell
from zerogate.protocol.stack import STACK, installed_version
from zerogate.session.session import Session

SCHEMA_VERSION = 1
PACKAGES = (*STACK, "pytest")

STORED_NAMES = {"device_events": "troubles", "other_processes": "strangers"}
"""Keys of schema version 1, by the better names that the code has for their values."""


def results(session: Session) -> dict[str, Any]:
    """Return everything that the session found, in types that JSON has.

    Its keys are those of results.json. Numbers may be NaN or infinite (``readable``).
    """
    cells = sorted({*session.measurements, *dict(session.errors)})
    return {
        "schema_version": SCHEMA_VERSION,
        "environment": environment(session),
        "cells": [{"id": cell.id, **asdict(cell)} for cell in cells],
        "measurements": [
            _measurement(session, measurement)
            for _, measurement in sorted(session.measurements.items())
        ],
        "failures": _failures(session),
        "batch_sizes": [
            {"cell": cell.id, **_with_stored_names(asdict(found))}
            for (cell, _), found in sorted(session.batch_sizes.items())
        ],
        "verdicts": [verdict.as_dict() for verdict in session.verdicts],
        "against": _against(session.against) if session.against else {},
    }


def _against(other: Session) -> dict[str, Any]:
    """Return what was measured in the other environment."""
    return {
        "packages": dict(other.setup.overlay.packages) if other.setup.overlay else {},
        "measurements": [_measurement(other, one) for _, one in sorted(other.measurements.items())],
        "failures": _failures(other),
    }


def _failures(session: Session) -> list[dict[str, str]]:
    return [
        {"cell": cell.id, "kind": error.kind, "summary": error.summary, "log": error.log}
        for cell, error in session.errors
    ]


def write_results(session: Session) -> Path:
    """Write results.json into the report folder, whole or not at all, and return its path."""
    path = session.options.report_folder / "results.json"
    write_json(path, readable(results(session)))
    return path


def readable(value: Any) -> Any:
    """Return ``value`` with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: readable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [readable(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def environment(session: Session) -> dict[str, Any]:
    """Return the machine, the packages and the numbers of launches of a session."""
    return {
        "host": host_key(),
        "driver": driver()[0],
        "cuda_devices": [card.name for card in cuda_devices()],
        "python": platform.python_version(),
        "packages": {name: installed_version(name) or "absent" for name in PACKAGES},
        "overlay": dict(session.setup.overlay.packages) if session.setup.overlay else {},
        "launcher": session.options.launcher,
        "launches": session.runner.launches,
        "resumed_launches": session.runner.resumed_launches,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _measurement(session: Session, measurement: Measurement) -> dict[str, Any]:
    states = model_states(session, measurement.cell)
    return {
        "cell": measurement.cell.id,
        "settings": measurement.settings,
        "software": measurement.software,
        "notes": measurement.notes,
        "model_states": states and states.stored(),
        "values": {name: measurement.value(name) for name in measurement.names},
        "launches": [_with_stored_names(asdict(launch)) for launch in measurement.launches],
    }


@dataclass(frozen=True, slots=True)
class ModelStates:
    """Bytes per parameter of one rank's model states, measured and by the papers.

    Those on the host are None where they cannot be measured.
    """

    device: float
    host: float | None
    paper: StateBytes

    def stored(self) -> dict[str, float | None]:
        return {
            "bytes_per_parameter": self.device,
            "paper_bytes_per_parameter": self.paper.device,
            "host_bytes_per_parameter": self.host,
            "paper_host_bytes_per_parameter": self.paper.host,
        }


def model_states(session: Session, cell: Cell) -> ModelStates | None:
    """Return the cell's bytes per parameter; None if they were not measured."""
    measurement = session.measurements.get(cell)
    if measurement is None or measurement.value("model_state_bytes") is None:
        return None
    settings = measurement.settings
    on_host = measurement.value("host_state_bytes")
    return ModelStates(
        device=measurement.scalar("model_state_bytes") / settings["parameters"],
        host=on_host / settings["parameters"] if isinstance(on_host, int) else None,
        paper=paper_states(session.setup.strategy(cell), measurement),
    )


def _with_stored_names(values: dict[str, Any]) -> dict[str, Any]:
    return {STORED_NAMES.get(name, name): value for name, value in values.items()}
