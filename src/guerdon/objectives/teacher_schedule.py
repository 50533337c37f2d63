"""How fast a teacher follows its student."""

from __future__ import annotations

import math


def cosine_rate(step: int, total: int, *, start: float = 0.01, end: float = 1e-5) -> float:
    """Share of the student that step k of K mixes into the teacher: end + (start - end) (1 + cos(pi k / K)) / 2.

    teacher <- (1 - a_k) teacher + a_k student. Beyond ``total`` it stays at ``end``.

    Args:
        step: k >= 0.
        total: K >= 1, the steps of the run.
        start, end: in [0, 1]. Defaults of the run script of Co-rewarding; a third party quotes an end of 1e-4, and its
            configuration file holds 0.3 -> 0.05: which one the paper's figures come from is UNVERIFIED.
    Raises:
        ValueError: a step below 0, a total below 1, or a rate outside [0, 1].
    Source: Co-rewarding (arXiv 2508.00410 v2), variant II.
    """
    if step < 0 or total < 1:
        raise ValueError(f"step must be >= 0 and total >= 1, got {step} and {total}")
    if not 0 <= start <= 1 or not 0 <= end <= 1:
        raise ValueError(f"rates must lie in [0, 1], got {start} and {end}")
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * min(step, total) / total))
