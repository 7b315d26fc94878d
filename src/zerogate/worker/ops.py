"""Builder of the compiled code that ranks load: DeepSpeed's ops and the emulated device.

``python -m zerogate.worker.ops CONTROLLER_PID NAME …`` prints a JSON object, name -> result of
``build``. It runs apart from any launch: a build may take minutes and must not count as set-up.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zerogate.worker import native_library
from zerogate.worker.disk import count_swapped_bytes
from zerogate.worker.parent_death import exit_with_controller

DEVICE = "emulated_device"

BUILDERS = {
    "cpu_adam": "CPUAdamBuilder",
    "fused_adam": "FusedAdamBuilder",
    "async_io": "AsyncIOBuilder",
}

REMEDIES = {
    "async_io": "needs libaio (Debian: apt install libaio-dev)",
}


def build(name: str, folder: Path) -> dict[str, str]:
    """Build one op into ``folder``; return an empty dict if it is there.

    Returns ``{"absent": why}`` if this machine lacks what the op needs, and ``{"failed": why}`` if it
    has that and the build fails anyway.
    """
    try:
        if name == DEVICE:
            native_library.build(folder)
            return {}
        # A build that was killed leaves torch's lock, and every later one would wait for it forever.
        # Removing it is safe: the caller holds its own lock on the whole folder.
        for lock in folder.glob("*/lock"):
            lock.unlink()
        builder = op_builder(name)
        if not builder.is_compatible(verbose=False):
            remedy = REMEDIES.get(name, "not available on this machine")
            return {"absent": f"DeepSpeed op {name}: {remedy}"}
        if _lacks_toolkit(name):
            return {"absent": f"DeepSpeed op {name}: needs the CUDA toolkit (nvcc; set CUDA_HOME)"}
        builder.load(verbose=False)
    except native_library.LibraryUnavailableError as error:
        failed = isinstance(error, native_library.BuildFailedError)
        return {"failed" if failed else "absent": str(error)}
    except Exception as error:  # Whatever a compiler, ninja or DeepSpeed raise.
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return {"failed": f"DeepSpeed op {name}: {type(error).__name__}: {first}"}
    return {}


def _lacks_toolkit(name: str) -> bool:
    """Return whether the op is compiled against CUDA's headers and the CUDA toolkit is missing.

    Runtime images have the toolkit's folder without nvcc, whose version DeepSpeed reads.
    """
    from deepspeed.accelerator import get_accelerator
    from torch.utils.cpp_extension import CUDA_HOME

    on_cuda = get_accelerator().device_name() == "cuda"
    if not on_cuda or name not in ("async_io", "fused_adam"):
        return False
    return CUDA_HOME is None or not Path(CUDA_HOME, "bin", "nvcc").exists()


def load(names: Sequence[str], folder: Path) -> None:
    """Load ops that were built into ``folder``, so that DeepSpeed finds them loaded.

    Raises whatever DeepSpeed raises.
    """
    if names:
        load_what_is_built(folder)
    for name in names:
        module = op_builder(name).load(verbose=False)
        if name == "async_io":
            count_swapped_bytes(module)


def load_what_is_built(folder: Path) -> None:
    """Make DeepSpeed load ops from ``folder`` without checking whether they are up to date.

    The check takes seconds (it detects the CPU and runs ninja), and it would recompile if DeepSpeed's
    sources lie at another path. The name of the folder depends on their content instead.
    """
    from deepspeed.ops.op_builder.builder import OpBuilder

    if hasattr(OpBuilder.jit_load, "__wrapped__"):
        return
    build = OpBuilder.jit_load

    @functools.wraps(build)
    def jit_load(builder: Any, verbose: bool = True) -> Any:
        library = folder / builder.name / f"{builder.name}.so"
        if not library.exists():
            return build(builder, verbose)
        spec = importlib.util.spec_from_file_location(builder.name, library)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        OpBuilder._loaded_ops[builder.name] = module
        return module

    OpBuilder.jit_load = jit_load


def op_builder(name: str) -> Any:
    """Return DeepSpeed's builder of the op, for the accelerator that DeepSpeed runs on."""
    from deepspeed.accelerator import get_accelerator

    return get_accelerator().create_op_builder(BUILDERS[name])


def main() -> None:
    exit_with_controller(int(sys.argv[1]), with_group=True)
    folder = Path(os.environ["ZEROGATE_NATIVE_DIR"])
    # Builders print, but standard output must hold only the answer.
    with contextlib.redirect_stdout(sys.stderr):
        found = {name: build(name, folder) for name in sys.argv[2:]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
