"""A model that trains in a second, and goes wrong as the file ``fault`` beside its data says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from transformers import GPT2Config, GPT2LMHeadModel

from zerogate.protocol.record import Recipe
from zerogate.worker.workload import Quality, Workload

SLEEPER = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"
PARENT = f"""
import subprocess, sys
command = [sys.executable, "-c", {SLEEPER!r}]
print(subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL).pid)
"""


class ToyFaults(Workload):
    version = 1
    full_parameters = 9_576_000
    scale_parameters = 9_576
    layer_classes = ("GPT2Block",)
    flooded = False
    quality: ClassVar = {"loss_left": Quality(better="lower", learned=4.1)}
    recipes: ClassVar = dict.fromkeys(
        ("cpu", "gpu"),
        Recipe(
            micro_batch_size=2,
            eval_micro_batch_size=2,
            epochs=2,
            learning_rate=1e-2,
            warmup_steps=2,
            gradient_accumulation_steps=2,
        ),
    )

    def build_model(self) -> torch.nn.Module:
        dropped = 0.1 if self._fault() == "dropout" else 0.0
        config = GPT2Config(
            n_layer=1, n_head=2, n_embd=24, vocab_size=64, n_positions=32,
            resid_pdrop=dropped, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        return GPT2LMHeadModel._from_config(config)

    def datasets(self) -> tuple[Any, Any]:
        rows = [[(7 * start + 3 * place) % 64 for place in range(16)] for start in range(52)]
        return rows[:48], rows[48:]

    def collate(self, samples: list[Any]) -> dict[str, torch.Tensor]:
        ids = torch.tensor(samples)
        return {"input_ids": ids, "labels": ids.clone()}

    def loss(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        if self._fault() == "skip":
            self._meet()
        if self._fault() == "environment":
            self._write_environment()
        if os.environ["RANK"] == "1":
            self._go_wrong()
        return super().loss(model, batch)

    def _fault(self) -> str:
        fault = self.corpus.folder / "fault"
        return fault.read_text() if fault.exists() else ""

    def _meet(self) -> None:
        """A collective of its own, which rank 1 skips."""
        group = dist.new_group()
        if os.environ["RANK"] == "0":
            dist.barrier(group)

    def _write_environment(self) -> None:
        """What the launcher told the ranks; no fault."""
        names = [name for name in os.environ if name.startswith(("ACCELERATE_", "FSDP_"))]
        values = {name: os.environ[name] for name in sorted(names)}
        (self.corpus.folder / f"environment{os.environ['RANK']}.json").write_text(
            json.dumps(values)
        )

    def _go_wrong(self) -> None:
        match self._fault():
            case "raise":
                raise ValueError("a fault in the workload")
            case "oom":
                torch.empty(10**12, dtype=torch.int8, device="meta")
                raise torch.OutOfMemoryError("CPU out of memory. Tried to allocate 5 bytes")
            case "hoard":
                self.hoarded = torch.empty(10**9, dtype=torch.int8, device="emulated")
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "leave":
                os._exit(0)
            case "unencodable":
                raise ValueError("a fault with half a character: \ud800")
            case "confess":
                print(dict(os.environ), flush=True)
                raise ValueError(f"what I know: {sorted(os.environ.values())}")
            case "host_oom":
                raise MemoryError("std::bad_alloc")
            case "slow":
                time.sleep(0.1)
            case "flood" if not self.flooded:
                self.flooded = True
                for _ in range(100):
                    print("x" * 2**20, flush=True)
            case fault:
                self._start_processes(fault)

    def _start_processes(self, fault: str) -> None:
        match fault:
            case "stray" if not (self.corpus.folder / "pids").exists():
                # Left behind by a parent that has gone, as a double fork does.
                pid = subprocess.check_output([sys.executable, "-c", PARENT], text=True)
                (self.corpus.folder / "pids").write_text(pid)
            case "children" if not (self.corpus.folder / "pids").exists():
                children = [
                    subprocess.Popen([sys.executable, "-c", SLEEPER], start_new_session=True)
                    for _ in range(2)
                ]
                pids = " ".join(str(child.pid) for child in children)
                (self.corpus.folder / "pids").write_text(pids)
            case "hang":
                # With a child that ignores SIGTERM, in a session of its own.
                child = subprocess.Popen([sys.executable, "-c", SLEEPER], start_new_session=True)
                (self.corpus.folder / "pids").write_text(f"{os.getpid()} {child.pid}")
                threading.Event().wait()

    def evaluate(self, model: torch.nn.Module, loader: Any, accelerator: Any) -> dict[str, float]:
        losses = [
            accelerator.gather_for_metrics(model(**batch).loss.expand(len(batch["labels"])))
            for batch in loader
        ]
        return {"loss_left": float(torch.cat(losses).mean())}
