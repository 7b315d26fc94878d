"""What metrics may change on cards, relative and absolute, where that is other than on the cpu tier.

There a run repeats itself to the byte; on a card it does not. CUDA's allocator hands out whole blocks,
which of them depends on when streams were done with others; sums of atomics come in another order each
time, dropout and half precision carry that on. Seconds in turn are steadier than on a shared CPU.
None of these was measured on a card yet (docs/gpu-results.md). Three times the spread of a baseline's
own launches widens them.
"""

from __future__ import annotations

MIB = 2**20

_BLOCKS = (0.005, 2.0 * MIB)
"""A large block may stay whole with 1 MiB left over (torch's c10/cuda/CUDACachingAllocator.cpp)."""
_SECONDS = (0.1, 0.02)
_RATE = (0.1, 0.0)

ON_CARDS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(
        (
            "peak_allocated_bytes",
            "peak_init_bytes",
            "peak_first_step_bytes",
            "peak_eval_bytes",
            "live_bytes",
            "model_state_bytes",
            "batch_base_bytes",
            "eval_batch_base_bytes",
        ),
        _BLOCKS,
    ),
    "leak_bytes_per_step": (0.0, 4096.0),  # As ``invariant.judge_grows``.
    "pinned_bytes": (0.02, 2.0 * MIB),
    **dict.fromkeys(("batch_bytes_per_sample", "eval_batch_bytes_per_sample"), (0.01, 0.0)),
    # What one sample more did not fit into: less than a sample takes says nothing.
    **dict.fromkeys(("batch_headroom_bytes", "eval_batch_headroom_bytes"), (0.0, 1024.0 * MIB)),
    **dict.fromkeys(("max_micro_batch_size", "max_eval_batch_size"), (0.02, 0.0)),
    "loss": (0.02, 0.0),
    "gradient_norm": (0.1, 0.0),
    "skipped_steps": (0.0, 2.0),
    **dict.fromkeys(("epoch_seconds", "step_seconds", "eval_seconds"), _SECONDS),
    **dict.fromkeys(
        (
            "samples_per_second",
            "samples_per_second_at_max",
            "eval_samples_per_second_at_max",
            "speedup_over_ddp",
            "speedup_over_ddp_at_max",
            "mfu",
        ),
        _RATE,
    ),
}
