"""Bradley-Terry over a chain of more than two classes, the better class above the worse. To be minimised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from guerdon.objectives.preference import bradley_terry
from guerdon.objectives.shapes import at_least_float32, check_not_empty

ORDER = ((0, 1), (0, 2), (1, 2))
"""ReMoDetect's comparisons of (generated, mixed, human)."""
WEIGHTS = (0.35, 1.0, 0.35)
"""Their weights, in that order; the training script's own default was (0.3, 1, 0.3)."""
LOGIT_L2 = 0.01


def ordered_preference(
    rewards: Tensor,
    *,
    pairs: Sequence[tuple[int, int]] = ORDER,
    weights: Sequence[float] = WEIGHTS,
    logit_l2: float = LOGIT_L2,
    reduce: Literal["mean", "none"] = "mean",
) -> Tensor:
    """(1 / P) sum_p w_p l(r_i, r_j) over the P pairs (i, j), l(a, b) = -log sigmoid(a - b) + logit_l2 (a^2 + b^2) / 2.

    With K = 2, one pair of weight 1 and no penalty it is `bradley_terry`.

    Args:
        rewards: [N, K], the rewards of N groups' K classes, best class first.
        pairs: (better, worse), columns of ``rewards``; default every pair of three classes.
        weights: >= 0, one a pair, not all zero. The penalty stands inside them, and the sum is divided by the number of
            pairs and not by their weights, both as published: another weight also changes the size of the step.
        logit_l2: >= 0, holds the rewards near 0.
        reduce: "mean" over groups or "none".
    Returns:
        Scalar or [N]; (1.7 / 3) ln 2 = 0.392783 for three equal rewards of 0 under the defaults.
    Raises:
        ValueError: not [N, K], no group, a pair that names no two columns, weights that do not fit.
    Source: ReMoDetect (arXiv 2405.17382), the released ``train.py`` and ``train.sh``; K classes instead of three: ours.
    """
    if rewards.dim() != 2 or rewards.shape[1] < 2:
        raise ValueError(f"rewards must be [N, K] with K >= 2 classes, got {list(rewards.shape)}")
    check_not_empty(rewards=rewards)
    classes = rewards.shape[1]
    for better, worse in pairs:
        if not (0 <= better < classes and 0 <= worse < classes) or better == worse:
            raise ValueError(f"pair ({better}, {worse}) does not name two of the {classes} classes")
    if not pairs or len(weights) != len(pairs) or min(weights) < 0 or not max(weights) > 0:
        raise ValueError(f"{len(pairs)} pairs need as many weights >= 0, not all zero, got {list(weights)}")
    if logit_l2 < 0:
        raise ValueError(f"logit_l2 must be >= 0, got {logit_l2}")
    columns = at_least_float32(rewards).unbind(1)
    total = torch.zeros_like(columns[0])
    for (i, j), weight in zip(pairs, weights, strict=True):
        ranking = bradley_terry(columns[i], columns[j], reduce="none")
        total = total + weight * (ranking + 0.5 * logit_l2 * (columns[i] ** 2 + columns[j] ** 2))
    loss = total / len(pairs)
    return loss if reduce == "none" else loss.mean()
