"""The learning rate by optimizer step: what ranks train with, and what they are held to."""

from __future__ import annotations


def schedule(step: int, *, warmup_steps: int, total_steps: int) -> float:
    """Fraction of the learning rate at optimizer step ``step`` (from 0).

    DeepSpeed's WarmupDecayLR with ``warmup_type: linear`` (deepspeed/runtime/lr_schedules.py),
    as the engine steps it: its counter trails by one step, so the first two steps train at 0.
    Every strategy follows it, so that their losses can be compared.
    """
    done = step - 1
    warmup = max(2, warmup_steps)
    if done < 0:
        return 0.0
    if done < warmup:
        return done / warmup
    return max(0.0, (total_steps - done) / max(1.0, total_steps - warmup))
