"""What reading a device every 50 ms costs the one that trains on it; prints a ratio, judges nothing.

tox run -e benchmarks, on a machine with a CUDA device
"""

from __future__ import annotations

import statistics
from contextlib import nullcontext

import pytest

from zerogate.devices.cards import cuda_devices
from zerogate.verdicts.paired_test import compare_pairs

STEPS = 200
PAIRS = 10
LIMIT = 1.01
"""What is printed beside the ratio: reading should cost less than 1 % of a step."""


def test_step_time_ratio_with_device_readings_is_printed():
    """Steps of matrix products on one device, in turn: A B B A and so on."""
    if not cuda_devices():
        pytest.skip("needs a CUDA device")
    import torch

    from zerogate.devices.nvml import DeviceWatch
    from zerogate.worker.memory import Clock

    (card, *_) = cuda_devices()
    matrix = torch.ones(4096, 4096, device="cuda", dtype=torch.bfloat16)

    def step_seconds(watched: bool) -> float:
        with DeviceWatch([card.uuid]) if watched else nullcontext():
            clock = Clock(torch.device("cuda"))
            clock.mark()
            for _ in range(STEPS):
                for _ in range(10):
                    matrix @ matrix
                clock.mark()
            return statistics.median(clock.laps())

    step_seconds(watched=False)
    order = [
        watched for pair in range(PAIRS) for watched in ((False, True), (True, False))[pair % 2]
    ]
    found: dict[bool, list[float]] = {False: [], True: []}
    for watched in order:
        found[watched].append(step_seconds(watched))
    cost = compare_pairs(found[True], found[False])
    told = "under" if cost.high < LIMIT else "over" if cost.low > LIMIT else "cannot tell if under"
    without = statistics.median(found[False])
    print(
        f"\na step with readings every 50 ms / without: {cost.ratio:.4f}, between {cost.low:.4f} and "
        f"{cost.high:.4f} with 95 %: {told} {LIMIT} (a step without: {without * 1e3:.3f} ms)"
    )
