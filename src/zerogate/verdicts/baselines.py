"""Baselines: read strictly, and recorded from measurements with their launches' values.

``baselines/<key>/`` has one JSON file per workload; ``verdicts.judge`` compares with them.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from zerogate.config.strategy_file import ConfigError
from zerogate.metrics.aggregation import Value
from zerogate.metrics.measurement import Measurement, median
from zerogate.protocol.atomic_write import write_text
from zerogate.protocol.record import Strict

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA_VERSION = 1

STRICT: Strict = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricBaseline:
    """Baseline of one metric: the median of its ``launches``, and their largest deviation from it.

    ``spread`` is relative to ``value``, and absolute if that is 0. For a series it is the largest of
    any step.
    """

    __pydantic_config__: ClassVar[Strict] = STRICT

    value: int | float | tuple[float, ...]
    spread: float
    launches: tuple[int | float | tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Origin of a cell's baseline. ``recorded`` is a date, ``commit`` this project's."""

    __pydantic_config__: ClassVar[Strict] = STRICT

    recorded: str
    commit: str
    reason: str
    hardware: str
    canary_seconds: float
    software: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellBaseline:
    """Baselines of one cell's metrics, and the settings that a comparison with them needs."""

    __pydantic_config__: ClassVar[Strict] = STRICT

    settings: dict[str, Any]
    provenance: Provenance
    metrics: dict[str, MetricBaseline]

    def scalars(self) -> dict[str, float]:
        """Return the values of the metrics that are one number, by name."""
        return {
            name: float(metric.value)
            for name, metric in self.metrics.items()
            if not isinstance(metric.value, tuple)
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineFile:
    """Baselines of all cells of one workload on one kind of machine."""

    __pydantic_config__: ClassVar[Strict] = STRICT

    schema_version: int
    workload: str
    cells: dict[str, CellBaseline] = field(default_factory=dict)


@functools.cache
def adapter() -> TypeAdapter[BaselineFile]:
    """Return the adapter that validates a baseline file and describes it (JSON schema)."""
    from pydantic import TypeAdapter

    return TypeAdapter(BaselineFile)


def read_baselines(path: Path) -> BaselineFile:
    """Return one workload's baselines; an absent file has no cells.

    Raises ConfigError, which names the file, the key and what was expected there.
    """
    if not path.exists():
        return BaselineFile(schema_version=SCHEMA_VERSION, workload=path.stem)
    from pydantic import ValidationError

    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot read it ({error.strerror}); expected a file") from None
    try:
        version = json.loads(text).get("schema_version")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{path}: not a JSON object ({error}); expected a baseline file"
        ) from None
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"{path}: schema_version: {version!r}; this release reads {SCHEMA_VERSION}; record the "
            "baselines anew with --update-baselines"
        )
    try:
        found = adapter().validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_problem(error)}") from None
    if found.workload != path.stem:
        raise ConfigError(
            f"{path}: workload: {found.workload!r}; expected {path.stem!r}, the file's name"
        )
    for key, cell in found.cells.items():
        _check_cell(f"{path}: cells.{key}", cell)
        if not re.fullmatch(r".+-w[1-9]\d*", key):
            raise ConfigError(f"{path}: cells.{key}: not a cell; expected a name like zero2-w2")
    return found


def _check_cell(where: str, cell: CellBaseline) -> None:
    """Raise ConfigError for a value that types cannot exclude.

    A spread that is larger than that of its launches would admit any change.
    """
    if not cell.provenance.canary_seconds > 0:
        raise ConfigError(f"{where}.provenance.canary_seconds: expected more than 0 seconds")
    for name, metric in cell.metrics.items():
        if not metric.launches:
            raise ConfigError(f"{where}.metrics.{name}.launches: empty; expected one per launch")
        try:
            value = median(metric.launches)
            own = _significant(spread(metric.value, metric.launches), 2)
        except (OverflowError, TypeError, ValueError, IndexError) as error:
            raise ConfigError(f"{where}.metrics.{name}: {error}; record it anew") from None
        if value != metric.value:
            raise ConfigError(f"{where}.metrics.{name}.value: not the median of its launches")
        if own != metric.spread:
            raise ConfigError(
                f"{where}.metrics.{name}.spread: {metric.spread:g}; its launches have {own:g}"
            )


def _first_problem(error: Any) -> str:
    first = error.errors()[0]
    # pydantic adds the branches of a union, which are no keys of the file.
    keys = [str(key) for key in first["loc"]]
    keys = [key for key in keys if key not in ("int", "float") and not key.startswith("tuple[")]
    given = repr(first["input"])
    problem = {
        "unexpected_keyword_argument": "unknown key; remove it",
        "missing": "missing; every baseline has it",
        "finite_number": f"expected a finite number, got {given}",
    }.get(first["type"])
    if problem is None:
        wanted = first["msg"].removeprefix("Input should be ")
        problem = f"expected {wanted}, got {given if len(given) < 60 else given[:57] + '...'}"
    return f"{'.'.join(keys)}: {problem}"


def spread(value: Value, launches: Sequence[Value]) -> float:
    """Return the largest relative deviation of any launch from ``value``; absolute if that is 0.

    For a series it is the largest of any step.
    """
    if isinstance(value, tuple):
        return max(
            (
                spread(own, [one[step] for one in launches if isinstance(one, tuple)])
                for step, own in enumerate(value)
            ),
            default=0.0,
        )
    numbers = [one for one in launches if not isinstance(one, tuple)]
    worst = max(abs(number - value) for number in numbers)
    return worst / abs(value) if value else float(worst)


def of_measurement(measurement: Measurement, provenance: Provenance) -> CellBaseline:
    """Return a measurement as a baseline.

    Numbers keep the digits that have a meaning: 7 in a series, 5 elsewhere. Integers stay exact.
    """
    metrics = {}
    for name in measurement.names:
        launches = tuple(map(_rounded, measurement.each(name)))
        value = median(launches)
        assert value is not None
        metrics[name] = MetricBaseline(
            value=value, spread=_significant(spread(value, launches), 2), launches=launches
        )
    return CellBaseline(settings=dict(measurement.settings), provenance=provenance, metrics=metrics)


def with_speedup(baseline: CellBaseline, name: str, speedups: tuple[float, ...]) -> CellBaseline:
    """Return ``baseline`` with its launches' speedups over DDP as the metric ``name``."""
    launches = tuple(_significant(speedup, 4) for speedup in speedups)
    value = median(launches)
    assert value is not None
    entry = MetricBaseline(
        value=value, spread=_significant(spread(value, launches), 2), launches=launches
    )
    return CellBaseline(
        settings=baseline.settings,
        provenance=baseline.provenance,
        metrics={**baseline.metrics, name: entry},
    )


def _rounded(value: Value) -> Value:
    if isinstance(value, tuple):
        return tuple(_significant(number, 7) for number in value)
    return value if isinstance(value, int) else _significant(value, 5)


def _significant(number: float, digits: int) -> float:
    return number if number == 0 or not math.isfinite(number) else float(f"{number:.{digits}g}")


def write_baselines(path: Path, baselines: BaselineFile) -> None:
    """Write the file sorted and with a line per metric, so that a new recording is a short diff."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _dump(asdict(baselines), depth=0) + "\n")


def _dump(value: Any, depth: int) -> str:
    """Return indented JSON in which a metric, with everything below it, is on one line."""
    if not isinstance(value, dict) or depth == 4 or not value:
        return json.dumps(value, sort_keys=True)
    pad = " " * (depth + 1)
    lines = [f"{pad}{json.dumps(key)}: {_dump(value[key], depth + 1)}" for key in sorted(value)]
    return "{\n" + ",\n".join(lines) + "\n" + " " * depth + "}"
