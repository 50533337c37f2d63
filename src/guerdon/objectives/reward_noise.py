"""Rewards that lie: turned round, missed, granted for nothing or blurred; and what that does to an advantage."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Kind = Literal["flip", "fn", "fp", "gaussian"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def noisy_rewards(
    rewards: ArrayLike, draws: ArrayLike, *, kind: Kind = "flip", bounds: tuple[float, float] = (0.0, 1.0)
) -> NDArray[np.float64]:
    """Rewards [N] after noise -> float64 [N]; the randomness is the caller's.

    rewards:  in ``bounds`` = (low, high) for every kind but "gaussian".
    draws:    bool [N], which rewards are struck: "flip" low + high - r (1 - r for {0, 1}); "fn" a reward above the
              middle becomes low (a right answer that is missed); "fp" one that is not becomes high (a wrong answer that
              is let through). For "gaussian" the numbers [N] that are added.

    Raises ValueError for shapes, an unknown kind, bounds that are not low < high, or a reward outside of them.
    Source: arXiv 2505.22653, section 2.1 (flip); the other kinds are ours.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    held, struck = np.asarray(rewards, dtype=np.float64), np.asarray(draws)
    if held.shape != struck.shape or held.ndim != 1:
        raise ValueError(f"rewards and draws must both be [N], got {list(held.shape)} and {list(struck.shape)}")
    if kind == "gaussian":
        return held + struck.astype(np.float64)
    low, high = bounds
    if not low < high:
        raise ValueError(f"bounds must be low < high, got {bounds}")
    if struck.dtype != np.bool_:
        raise ValueError(f"draws must be bool for kind {kind!r}, got {struck.dtype}")
    if bool(((held < low) | (held > high)).any()):
        raise ValueError(f"a reward lies outside of ({low}, {high})")
    right = held > (low + high) / 2
    if kind == "flip":
        return np.where(struck, low + high - held, held)
    if kind == "fn":
        return np.where(struck & right, low, held)
    return np.where(struck & ~right, high, held)


def expected_reward(rewards: ArrayLike, p: float, *, bounds: tuple[float, float] = (0.0, 1.0)) -> NDArray[np.float64]:
    """E[r~ | r] = (1 - 2 p) r + p (low + high): the mean of a reward that is turned round with probability ``p``.

    A baseline learnt from it is v -> (1 - 2 p) v + p, so the expected advantage is (1 - 2 p) A; with one draw a group a
    group-relative one is A or exactly -A, the deviation being the same. At p = 1/2 nothing is left to learn from.
    Raises ValueError for a ``p`` outside [0, 1]. Source: follows from arXiv 2505.22653, section 2.1.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p must be a probability, got {p}")
    return (1 - 2 * p) * np.asarray(rewards, dtype=np.float64) + p * (bounds[0] + bounds[1])


def calibrated(
    scores: ArrayLike, aux: ArrayLike, *, tau: float = 0.5, alpha: float = 0.1, cap: float | None = 1.0
) -> NDArray[np.float64]:
    """s where s >= tau, else min(cap, s + alpha aux) -> float64 [N]: low scores, and only they, are topped up.

    A score just below ``tau`` may end above one just over it (0.49 + 0.1 against 0.5): the order is not kept.
    Raises ValueError for shapes. Source: arXiv 2505.22653, section 3.3 (tau = 0.5, alpha = 0.1, cap = 1).
    """
    held, extra = np.asarray(scores, dtype=np.float64), np.asarray(aux, dtype=np.float64)
    if held.shape != extra.shape:
        raise ValueError(f"scores and aux must have one shape, got {list(held.shape)} and {list(extra.shape)}")
    raised = held + alpha * extra
    return np.where(held >= tau, held, raised if cap is None else np.minimum(cap, raised))
