"""Compiled ops are loaded from where they were built, past DeepSpeed's own look-up.

In a process of its own: it changes DeepSpeed, which takes seconds to import.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import psutil

BUILDERS = """
import sys
from pathlib import Path
from deepspeed.ops.op_builder.builder import OpBuilder
from zerogate.worker import ops

class Builder(OpBuilder):
    def __init__(self, name): self.name = name
    def sources(self): return []
    def absolute_name(self): return "deepspeed.ops." + self.name
    def load(self, verbose=True): return self.jit_load(verbose)

OpBuilder.jit_load = lambda self, verbose: "built by DeepSpeed"
for _ in range(2):
    ops.load_what_is_built(Path(sys.argv[1]))
print(Builder("_psutil_linux").load().__file__)
print(Builder("some_op").load())
"""


def test_op_builder_loads_built_op_and_leaves_other_to_deepspeed(tmp_path: Path) -> None:
    [library] = Path(psutil.__file__).parent.glob("_psutil_linux*.so")
    built = tmp_path / "_psutil_linux" / "_psutil_linux.so"
    built.parent.mkdir()
    shutil.copy(library, built)
    result = subprocess.run(
        [sys.executable, "-c", BUILDERS, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-2:] == [str(built), "built by DeepSpeed"]
