"""Initial weights of a workload, drawn once and kept in a cache.

Drawing takes long for a full-size model: torch draws each weight as it builds a layer, and
transformers draws it again. The first launch keeps what was drawn. Later ones build the model without
drawing, and map the file: ranks share its pages, which the kernel may drop and read again. Mappings
are private, so training never writes to the file; a removed file stays valid for ranks that mapped it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from zerogate.protocol.atomic_write import replacement
from zerogate.protocol.job import Job
from zerogate.protocol.units import GIB
from zerogate.worker.workload import Workload

LIMIT_BYTES = 24 * GIB
"""The most that the cache takes: the three workloads (11.2 GB) under two environments."""

FREE_PER_FILE = 6
"""A file is written if the disk has this many times its size: it takes 4 bytes a parameter, and the
launch that writes it may need 18 more to offload to disk (``devices.capacity``)."""

UNREADABLE = (
    SafetensorError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
)
"""Errors of reading a damaged file; which one depends on where the damage is."""

PARAMETER, BUFFER, RANDOM_STATE, ALIASES = "parameter ", "buffer ", "random state", "aliases"
"""Names in a file: prefixes of tensors' names, a tensor, and an entry of the metadata."""

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialWeights:
    """A file's content: tensors by name, and the generator's state after drawing.

    A parameter with several names (tied weights) is one tensor, and has all of them.
    """

    parameters: Mapping[str, torch.Tensor]
    buffers: Mapping[str, torch.Tensor]
    random_state: torch.Tensor


def weights_file(job: Job, workload: Workload) -> Path | None:
    """Return where the cache has the weights that ``job`` begins with; None if they are not cached.

    The name holds everything that decides what is drawn, down to the files of torch and transformers
    and to the CPU's instructions, for which torch draws differently.
    """
    if job.weights_folder is None or workload.pretrained:
        return None
    packages = [_installed_files(name) for name in ("torch", "transformers")]
    if None in packages:
        return None
    found = hashlib.sha256(repr((FORMAT, packages)).encode())
    found.update(torch.backends.cpu.get_cpu_capability().encode())
    sources = Path(job.workload_file).parent
    for path in sorted(sources.rglob("*")):
        inside = path.relative_to(sources)
        # Weights may depend on any source beside the workload, but not on data.
        if path.is_file() and inside.parts[0] != "data" and "__pycache__" not in inside.parts:
            found.update(f"{inside}\0".encode() + path.read_bytes() + b"\0")
    name = f"{job.cell.workload}-v{workload.version}-{job.cell.tier}-seed{job.seed}"
    return Path(job.weights_folder) / f"{name}-{found.hexdigest()[:16]}.safetensors"


def _installed_files(package: str) -> str | None:
    """Return pip's list of the package's files and their hashes.

    None if it says nothing about them: the package is installed in place, or not by pip.
    """
    one = importlib.metadata.distribution(package)
    origin = json.loads(one.read_text("direct_url.json") or "{}")
    return None if origin.get("dir_info", {}).get("editable") else one.read_text("RECORD")


def build(workload: Workload, path: Path | None, *, keep: bool) -> torch.nn.Module:
    """Build the workload's model from the file, or draw its weights, and ``keep`` them there.

    The generator must be seeded, and is left as drawing leaves it. Without a file it only draws.
    """
    if path is None:
        return workload.build_model()
    seeded = torch.get_rng_state()
    if (kept := read(path)) and (model := _build_undrawn(workload, kept, path)):
        torch.set_rng_state(kept.random_state)
        return model
    torch.set_rng_state(seeded)
    model = workload.build_model()
    if keep:
        write(path, model)
    return model


def parameters(
    workload: Workload, path: Path | None, sharded: torch.nn.Module
) -> Mapping[str, torch.Tensor]:
    """Return the parameters, by name, that ``build`` would give the model that is ``sharded`` already.

    They are taken from the file, or are those of a model that is drawn and kept.
    """
    if path and (kept := read(path)) and _fits(kept, sharded, path):
        torch.set_rng_state(kept.random_state)
        return kept.parameters
    model = workload.build_model()
    if path:
        write(path, model)
    return dict(model.named_parameters())


@contextmanager
def shard_undrawn() -> Iterator[None]:
    """Keep transformers from drawing the weights of a model that it shards as it builds it.

    It would gather every module's weights for that.
    """
    from transformers.integrations import deepspeed as integration

    name = "initialize_weights_zero3"
    if not hasattr(integration, name):
        yield  # It may have moved: then the weights are drawn, and replaced.
        return
    original = getattr(integration, name)
    setattr(integration, name, _initialise_other_modules)
    try:
        yield
    finally:
        setattr(integration, name, original)


def _initialise_other_modules(model: Any) -> None:
    """Initialise the modules of a transformers model that have no parameters, but may have buffers.

    ``initialize_weights_zero3`` does as much on all ranks but the first.
    """
    for module in model.modules():
        touched = [module, *module.children()]  # A module may initialise its children too.
        if any(True for one in touched for _ in one.parameters(recurse=False)):
            module._is_hf_initialized = True
    model.initialize_weights()


def read(path: Path) -> InitialWeights | None:
    """Return what the file holds, mapped; None if it is absent, or damaged and thus removed."""
    if not path.exists():
        return None
    try:
        kept = _content(path)
    except UNREADABLE as error:
        _remove(path, f"{type(error).__name__}: {error}")
        return None
    with suppress(OSError):
        os.utime(path)  # The files that were used last are kept longest.
    return kept


def _content(path: Path) -> InitialWeights:
    with safe_open(path, framework="pt") as file:
        aliases: dict[str, str] = json.loads(file.metadata()[ALIASES])
    tensors = load_file(path)
    parameters = _named(tensors, PARAMETER)
    torch.Generator().set_state(tensors[RANDOM_STATE])  # Raises if it is no state.
    return InitialWeights(
        parameters=parameters | {name: parameters[first] for name, first in aliases.items()},
        buffers=_named(tensors, BUFFER),
        random_state=tensors[RANDOM_STATE],
    )


def _named(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)
    }


def write(path: Path, model: torch.nn.Module) -> None:
    """Write the tensors of ``model`` and the generator's state, unless there is no room for them.

    One process writes at a time. It is not waited for, since a later launch can write too.
    """
    size = sum(one.nbytes for one in (*model.parameters(), *model.buffers()))
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if size > (most := min(LIMIT_BYTES, free // FREE_PER_FILE)):
            _say(path, f"not kept: they take {size} bytes, and {folder} has room for {most}")
            return
        with FileLock(folder / ".lock", timeout=0):
            if not path.exists():
                _make_room(folder, size)
                with replacement(path) as temporary:
                    _save(model, temporary)
    except Timeout:
        _say(path, "not kept: another launch is writing to the cache")
    except (OSError, RuntimeError, SafetensorError) as error:
        _say(path, f"not kept: {type(error).__name__}: {error}")


def _save(model: torch.nn.Module, path: Path) -> None:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    aliases = {
        name: names[id(parameter)]
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if name != names[id(parameter)]
    }
    tensors = {PARAMETER + name: one.detach() for name, one in model.named_parameters()}
    # Copies: buffers may share memory, or be views, which the format does not know.
    tensors |= {
        BUFFER + name: one.clone(memory_format=torch.contiguous_format)
        for name, one in model.named_buffers(remove_duplicate=False)
    }
    tensors[RANDOM_STATE] = torch.get_rng_state()
    save_file(tensors, path, metadata={ALIASES: json.dumps(aliases)})


def _make_room(folder: Path, size: int) -> None:
    """Remove the files that were not used for longest, so that ``size`` bytes more are allowed."""
    for left in folder.glob(".*.safetensors.*"):
        left.unlink()  # Left by a process that was killed as it wrote.
    files = sorted(folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
    total = size + sum(file.stat().st_size for file in files)
    for file in files:
        if total <= LIMIT_BYTES:
            return
        total -= file.stat().st_size
        file.unlink()


def _build_undrawn(workload: Workload, kept: InitialWeights, path: Path) -> torch.nn.Module | None:
    """Build the workload's model with the tensors that were kept; None if they are not its own."""
    try:
        with init_empty_weights(include_buffers=False):
            model = workload.build_model()
    except Exception as error:
        # The workload may use its weights as it builds the model. If not, drawing raises it again.
        _say(path, f"not used: the model cannot be built without ({type(error).__name__}: {error})")
        return None
    if not _fits(kept, model, path):
        return None
    made: dict[int, torch.nn.Parameter] = {}
    for name, tensor in kept.parameters.items():
        owner, _, leaf = name.rpartition(".")
        own = model.get_submodule(owner)._parameters
        needs = model.get_parameter(name).requires_grad
        own[leaf] = made.setdefault(id(tensor), torch.nn.Parameter(tensor, requires_grad=needs))
    for name, buffer in kept.buffers.items():
        owner, _, leaf = name.rpartition(".")
        model.get_submodule(owner)._buffers[leaf] = buffer
    return model


def _fits(kept: InitialWeights, model: torch.nn.Module, path: Path) -> bool:
    """Return whether the file has the model's parameters, values apart; if not, remove it."""
    ours = {
        name: tuple(getattr(parameter, "ds_shape", parameter.shape))  # DeepSpeed's, if sharded.
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }
    theirs = {name: tuple(parameter.shape) for name, parameter in kept.parameters.items()}
    if ours == theirs and {one.dtype for one in kept.parameters.values()} == {torch.float32}:
        return True
    _remove(path, "it has other parameters than the model")
    return False


def _remove(path: Path, why: str) -> None:
    _say(path, f"removed, and drawn again: {why}")
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _say(path: Path, text: str) -> None:
    print(f"initial weights {path.name}: {' '.join(text.split())}", file=sys.stderr, flush=True)
