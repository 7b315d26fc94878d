"""The learning rate by optimizer step: ranks train with it, and are checked against it."""

from __future__ import annotations


def schedule(step: int, *, warmup_steps: int, total_steps: int) -> float:
    """Return the fraction of the learning rate at optimizer step ``step`` (from 0).

    The formula is DeepSpeed's WarmupDecayLR with ``warmup_type: linear``
    (deepspeed/runtime/lr_schedules.py), as the engine steps it: its counter trails by one step, so
    the first two steps train at 0. Every strategy follows it, so that their losses can be compared.
    """
    done = step - 1
    warmup = max(2, warmup_steps)
    if done < 0:
        return 0.0
    if done < warmup:
        return done / warmup
    return max(0.0, (total_steps - done) / max(1.0, total_steps - warmup))
