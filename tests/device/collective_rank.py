"""One of two ranks that run gloo's collectives on the device; run by test_collectives.py."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from comparing import DEVICE
from torch.nn.parallel import DistributedDataParallel

from zerogate.worker import emulated_device
from zerogate.worker.native_library import NativeLibrary

RANK, RANKS = int(os.environ["RANK"]), 2


def own(count: int = 4, device: str = DEVICE) -> torch.Tensor:
    """Return numbers that differ between ranks."""
    return torch.arange(count, dtype=torch.float32, device=device) + 10 * RANK


def all_reduce(device: str) -> list[torch.Tensor]:
    x, y, z = own(device=device), own(device=device), own(device=device)[1:]
    dist.all_reduce(x)
    work = dist.all_reduce(y, op=dist.ReduceOp.MAX, async_op=True)
    work.wait()
    dist.all_reduce(z)
    return [x, y, z]


def all_reduce_in_bf16(device: str) -> list[torch.Tensor]:
    x = own(device=device).bfloat16()
    dist.all_reduce(x)
    return [x]


def broadcast(device: str) -> list[torch.Tensor]:
    x = own(device=device)
    dist.broadcast(x, src=1)
    return [x]


def reduce(device: str) -> list[torch.Tensor]:
    x = own(device=device)
    dist.reduce(x, dst=0)
    return [x] if RANK == 0 else []


def all_gather(device: str) -> list[torch.Tensor]:
    parts = [torch.empty(4, device=device) for _ in range(RANKS)]
    dist.all_gather(parts, own(device=device))
    whole = torch.empty(8, device=device)
    dist.all_gather_into_tensor(whole, own(device=device))
    later = torch.empty(8, device=device)
    dist.all_gather_into_tensor(later, own(device=device), async_op=True).wait()
    return [*parts, whole, later]


def all_gather_into_own_part(device: str) -> list[torch.Tensor]:
    whole = torch.zeros(8, device=device)
    whole[4 * RANK :][:4].copy_(own(device=device))
    dist.all_gather_into_tensor(whole, whole[4 * RANK :][:4])
    return [whole]


def reduce_scatter(device: str) -> list[torch.Tensor]:
    part, mean = torch.empty(4, device=device), torch.empty(4, device=device)
    dist.reduce_scatter_tensor(part, own(8, device))
    dist.reduce_scatter_tensor(mean, own(8, device), op=dist.ReduceOp.AVG)
    return [part, mean]


def gather_and_scatter(device: str) -> list[torch.Tensor]:
    parts = [torch.empty(4, device=device) for _ in range(RANKS)]
    dist.gather(own(device=device), parts if RANK == 0 else None, dst=0)
    part = torch.empty(4, device=device)
    dist.scatter(part, [own(device=device) * n for n in (1, 2)] if RANK == 0 else None, src=0)
    return [*(parts if RANK == 0 else []), part]


def all_to_all(device: str) -> list[torch.Tensor]:
    x = torch.empty(4, device=device)
    dist.all_to_all_single(x, own(device=device))
    return [x]


def send_and_receive(device: str) -> list[torch.Tensor]:
    x = own(device=device)
    if RANK == 0:
        dist.send(x, 1)
    else:
        dist.recv(x, 0)
    return [x]


def functional_collectives(device: str) -> list[torch.Tensor]:
    group = dist.group.WORLD
    return [
        functional.wait_tensor(one)
        for one in (
            functional.all_reduce(own(device=device), "sum", group),
            functional.all_gather_tensor(own(device=device), 0, group),
            functional.reduce_scatter_tensor(own(device=device), "sum", 0, group),
        )
    ]


def objects(device: str) -> list[torch.Tensor]:
    gathered: list[int] = [0, 0]
    dist.all_gather_object(gathered, RANK + 1)
    dist.barrier()
    return [torch.tensor(gathered, device=device)]


def ddp_gradients(device: str) -> list[torch.Tensor]:
    torch.manual_seed(1)
    layers = torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
    module = DistributedDataParallel(torch.nn.Sequential(*layers).to(device))
    module(own(device=device).view(1, 4)).square().sum().backward()
    return [one.grad for one in module.parameters()]


COLLECTIVES: tuple[Callable[[str], list[torch.Tensor]], ...] = (
    all_reduce,
    all_reduce_in_bf16,
    broadcast,
    reduce,
    all_gather,
    all_gather_into_own_part,
    reduce_scatter,
    gather_and_scatter,
    all_to_all,
    send_and_receive,
    functional_collectives,
    objects,
    ddp_gradients,
)


def main(library: str, store: str) -> None:
    torch.set_num_threads(1)
    emulated_device.register(NativeLibrary(Path(library), devices=RANKS))
    emulated_device.use(RANK)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=RANK, world_size=RANKS)
    for collective in COLLECTIVES:
        found, expected = collective(DEVICE), collective("cpu")
        for one, other in zip(found, expected, strict=True):
            assert one.device == torch.device(DEVICE, RANK), collective.__name__
            assert torch.equal(one.cpu(), other), (collective.__name__, one, other)
        print(collective.__name__, flush=True)
    dist.destroy_process_group()


main(*sys.argv[1:])
