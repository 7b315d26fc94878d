"""Reader of the files that ranks leave: records of this version, and of the one before it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from zerogate.config.validation import from_json
from zerogate.protocol.record import SCHEMA_VERSION, RankRecord

DROPPED_SINCE_VERSION_1 = ("accelerate_environment", "eval_samples")
FILLED_IN_BY_VERSION_1 = ("peak_bytes", "driver_bytes", "source", "strangers", "troubles")
"""Fields of a record's device that the controller used to write; NVML's readings replace them."""


def read_record(path: Path) -> RankRecord:
    """Return one rank's record. Raises ValueError with the file and the first wrong key."""
    content = path.read_bytes()
    with suppress(ValueError, RecursionError):  # No JSON: the strict reader says what is wrong.
        values = json.loads(content)
        if isinstance(values, dict) and values.get("schema_version") == 1:
            content = json.dumps(_from_version_1(values)).encode()
    try:
        return from_json(RankRecord, content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; expected a rank record") from None


def _from_version_1(values: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in values.items() if name not in DROPPED_SINCE_VERSION_1}
    if isinstance(device := found.get("device"), dict):
        found["device"] = {
            name: value for name, value in device.items() if name not in FILLED_IN_BY_VERSION_1
        }
    return found | {"schema_version": SCHEMA_VERSION}
