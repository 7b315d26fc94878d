"""Builds what ranks load compiled: DeepSpeed's ops and the counting allocator.

``python -m zerogate.worker.ops CONTROLLER_PID NAME …`` prints a JSON object, name -> what ``build``
returns. Run apart from any launch: a build takes up to minutes and must not count as set-up.
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

from zerogate.worker import allocator
from zerogate.worker.disk import count_swapped_bytes
from zerogate.worker.parent_death import exit_with_controller

ALLOCATOR = "cpu_allocator"

BUILDERS = {
    "deepspeed_shm_comm": "ShareMemCommBuilder",
    "cpu_adam": "CPUAdamBuilder",
    "fused_adam": "FusedAdamBuilder",
    "async_io": "AsyncIOBuilder",
}

REMEDIES = {
    "async_io": "needs libaio (Debian: apt install libaio-dev)",
}


def build(name: str, folder: Path) -> dict[str, str]:
    """Build one op into ``folder``.

    Empty once it is there; ``{"absent": why}`` where this machine lacks what it needs, and
    ``{"failed": why}`` where it has that and the build goes wrong all the same.
    """
    try:
        if name == ALLOCATOR:
            allocator.build(folder)
            return {}
        # A build that was killed leaves torch's lock, and every later one would wait for it for
        # ever. Whoever calls this holds a lock of its own over the whole folder.
        for lock in folder.glob("*/lock"):
            lock.unlink()
        builder = op_builder(name)
        if not builder.is_compatible(verbose=False):
            remedy = REMEDIES.get(name, "not available on this machine")
            return {"absent": f"DeepSpeed op {name}: {remedy}"}
        if _lacks_toolkit(name):
            return {"absent": f"DeepSpeed op {name}: needs CUDA's toolkit (nvcc; set CUDA_HOME)"}
        builder.load(verbose=False)
    except allocator.AllocatorUnavailableError as error:
        return {"failed" if isinstance(error, allocator.BuildFailedError) else "absent": str(error)}
    except Exception as error:  # Whatever a compiler, ninja or DeepSpeed raise.
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return {"failed": f"DeepSpeed op {name}: {type(error).__name__}: {first}"}
    return {}


def _lacks_toolkit(name: str) -> bool:
    """Whether the op is compiled against CUDA's headers, and nobody knows where they are; images made
    to run things have the folder without the compiler, whose version DeepSpeed asks for.
    """
    from deepspeed.accelerator import get_accelerator
    from torch.utils.cpp_extension import CUDA_HOME

    on_cuda = get_accelerator().device_name() == "cuda"
    if not on_cuda or name not in ("async_io", "fused_adam"):
        return False
    return CUDA_HOME is None or not Path(CUDA_HOME, "bin", "nvcc").exists()


def load(names: Sequence[str], folder: Path) -> None:
    """Load ops built into ``folder``, so that DeepSpeed finds them loaded.

    Raises what DeepSpeed raises.
    """
    if names:
        load_what_is_built(folder)
    for name in names:
        module = op_builder(name).load(verbose=False)
        if name == "async_io":
            count_swapped_bytes(module)


def load_what_is_built(folder: Path) -> None:
    """Have DeepSpeed take ops from ``folder`` without asking whether they are up to date.

    Asking takes seconds (which CPU this is, what ninja thinks), and it would compile anew wherever
    DeepSpeed's sources lie at another path. The folder is kept by their content instead.
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
    """DeepSpeed's builder of the op, for the accelerator it runs on."""
    from deepspeed.accelerator import get_accelerator

    return get_accelerator().create_op_builder(BUILDERS[name])


def main() -> None:
    exit_with_controller(int(sys.argv[1]), with_group=True)
    folder = Path(os.environ["ZEROGATE_NATIVE_DIR"])
    # Builders print; the answer alone goes to standard output.
    with contextlib.redirect_stdout(sys.stderr):
        found = {name: build(name, folder) for name in sys.argv[2:]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
