"""Reads the user's strategy files: an Accelerate YAML, a DeepSpeed JSON.

A typo is found here, before anything is launched: one line with file, key and remedy.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from zerogate.config.text import one_line

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

    from zerogate.config.strategy_schema import AccelerateConfig, DeepSpeedFile

LONGEST_VALUE = 60

Schema = TypeVar("Schema", bound="BaseModel")


class ConfigError(ValueError):
    """A file or an option of the user's that is wrong; the message names file, key and remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def read_accelerate_config(path: Path) -> AccelerateConfig:
    """Return a strategy file, checked strictly. Raises ConfigError."""
    from zerogate.config.strategy_schema import AccelerateConfig

    return _checked(path, _read_yaml(path), AccelerateConfig)


def read_deepspeed_config(path: Path, *, named_by: Path) -> DeepSpeedFile:
    """Return a DeepSpeed config file. ``named_by`` is the strategy file that names it.

    Raises ConfigError.
    """
    from zerogate.config.strategy_schema import DeepSpeedFile

    try:
        config = json.loads(path.read_text())
    except RecursionError:
        raise ConfigError(f"{path}: file: nested too deeply; expected a DeepSpeed config") from None
    except OSError as error:
        raise ConfigError(
            f"{named_by}: deepspeed_config.deepspeed_config_file: cannot read {path} "
            f"({error.strerror}); expected a DeepSpeed config, relative to the project's folder"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: file: not UTF-8; expected a DeepSpeed config") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: line {error.lineno}: {error.msg}; expected JSON") from None
    except ValueError as error:  # A path or a number that Python does not take.
        raise ConfigError(f"{path}: file: {_key(error)}; expected a DeepSpeed config") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: file: not an object; expected a DeepSpeed config")
    return _checked(path, config, DeepSpeedFile)


def _read_yaml(path: Path) -> dict[Any, Any]:
    try:
        config = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"{path}: file: {error.strerror}; expected an Accelerate config"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: file: not UTF-8; expected an Accelerate config") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "file"
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigError(f"{path}: {where}: {problem}; expected an Accelerate config") from None
    except RecursionError:
        raise ConfigError(
            f"{path}: file: nested too deeply; expected an Accelerate config"
        ) from None
    except (ValueError, OverflowError, LookupError, AttributeError, TypeError) as error:
        # yaml's own readers of dates, numbers and tags fail in all of these ways.
        raise ConfigError(f"{path}: file: {_key(error)}; expected an Accelerate config") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: file: not a mapping; expected an Accelerate config")
    return config


def _checked(path: Path, config: dict[Any, Any], schema: type[Schema]) -> Schema:
    from pydantic import ValidationError

    try:
        return schema.model_validate(config)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_problem(error)}") from None


def _first_problem(error: ValidationError) -> str:
    """Return the first problem as ``key: what is wrong; what was expected``."""
    first: Any = error.errors(include_url=False)[0]
    context = first.get("ctx", {})
    key = ".".join(map(_key, (*first["loc"], *filter(None, [context.get("key")]))))
    if first["type"] == "problem":
        return f"{key}: {context['text']}"
    given = _short(first["input"])
    match first["type"]:
        case "literal_error":
            return f"{key}: {given}; expected {context['expected'].replace(chr(39), '')}"
        case "model_type" | "dict_type":
            return f"{key}: {given}; expected a mapping"
        case "string_type":
            return f"{key}: {given}; expected text"
    return f"{key}: {given}; {first['msg']}"


def _short(value: Any) -> str:
    """Return a value as it was given, on one line, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of thousands of digits in decimal.
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def _key(name: Any) -> str:
    """Return a key on one line."""
    text = str(name)
    return text if text.isprintable() and len(text) <= LONGEST_VALUE else _short(text)
