"""How fast an exponential moving average of weights forgets."""

from __future__ import annotations


def ema_decay(step: int, max_decay: float) -> float:
    """Warm-up of an EMA's decay: min((1 + n) / (10 + n), max_decay) after n optimiser steps.

    The average is shadow <- decay * shadow + (1 - decay) * weights. Early steps forget fast, so the random start does
    not linger.

    Args:
        step: number n >= 0 of optimiser steps taken (not of micro-batches: stepping it with an unchanged n shortens the
            memory).
        max_decay: the ceiling, in [0, 1]. RealGen uses 0.9 for the policy's LoRA and 0.99 for its detectors.
    Raises:
        ValueError: a negative step or a ceiling outside [0, 1].
    Source: RealGen and Flow-GRPO reference code (the same rule as in TensorFlow's ExponentialMovingAverage).
    """
    if step < 0:
        raise ValueError(f"step must be >= 0, got {step}")
    if not 0 <= max_decay <= 1:
        raise ValueError(f"max_decay must be in [0, 1], got {max_decay}")
    return min((1 + step) / (10 + step), max_decay)
