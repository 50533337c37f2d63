"""Does a proxy rise where gold rises, checkpoint by checkpoint?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import spearmanr

from guerdon.core.errors import GuerdonError

__all__ = ["Monotonicity", "monotonicity"]


@dataclass(frozen=True)
class Monotonicity:
    """rho: Spearman's correlation of the checkpoints' means in [-1, 1], nan where one side is constant; p: of rho being
    0. means: (proxy, gold) of each checkpoint, in their order."""

    rho: float
    p: float
    means: list[tuple[float, float]]


def monotonicity(proxy: ArrayLike, gold: ArrayLike) -> Monotonicity:
    """`Monotonicity` of scores [checkpoints, prompts]; nan entries are left out of both means of their prompt.

    Raises GuerdonError for shapes, or fewer than three checkpoints.
    Source: Regularized Relevance Reward, later version (arXiv 2402.03469): Spearman's rho of mean proxy and mean gold
    over ten checkpoints.
    """
    first, second = np.asarray(proxy, np.float64), np.asarray(gold, np.float64)
    if first.ndim != 2 or first.shape != second.shape or len(first) < 3:
        raise GuerdonError(
            f"proxy and gold must be of one shape [checkpoints >= 3, prompts], got {list(first.shape)} and "
            f"{list(second.shape)}"
        )
    known = ~(np.isnan(first) | np.isnan(second))
    if not known.any(axis=1).all():
        raise GuerdonError("a checkpoint has no prompt that both proxy and gold scored")
    means = [(float(a[keep].mean()), float(b[keep].mean())) for a, b, keep in zip(first, second, known)]
    sides = list(zip(*means, strict=True))
    if any(len(set(side)) < 2 for side in sides):
        return Monotonicity(float("nan"), float("nan"), means)
    found = spearmanr(*sides)
    return Monotonicity(float(found.statistic), float(found.pvalue), means)
