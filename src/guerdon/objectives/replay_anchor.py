"""What keeps a reward model that is trained on near the one it was: a pull on its rewards, not on its weights."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from guerdon.objectives.shapes import at_least_float32, check_not_empty, check_same_shape

COEFFICIENT = 0.01


def replay_anchor(
    rewards: Tensor,
    reference: Tensor,
    *,
    coefficient: float = COEFFICIENT,
    reduce: Literal["sum", "mean"] = "sum",
) -> Tensor:
    """coefficient * sum_i (r(z_i) - r0(z_i))^2 over replayed texts z_i. To be minimised.

    Args:
        rewards: [N], of the model in training.
        reference: [N], of the frozen model it began as; a constant (detached).
        coefficient: >= 0.
        reduce: "sum" as published, so that the pull grows with the number of replayed texts (one a step there), or
            "mean", which does not (ours).
    Returns:
        Scalar; 0.0005 for drifts of 0.1 and -0.2 under the defaults.
    Raises:
        ValueError: shapes differ, nothing given, a coefficient below 0.
    Source: ReMoDetect (arXiv 2405.17382), the released ``train.py`` (``l2_ratio``).
    """
    check_same_shape(rewards=rewards, reference=reference)
    check_not_empty(rewards=rewards)
    if coefficient < 0:
        raise ValueError(f"coefficient must be >= 0, got {coefficient}")
    if reduce not in ("sum", "mean"):
        raise ValueError(f"reduce must be 'sum' or 'mean', got {reduce!r}")
    square = (at_least_float32(rewards) - at_least_float32(reference).detach()) ** 2
    return coefficient * (square.sum() if reduce == "sum" else square.mean())
