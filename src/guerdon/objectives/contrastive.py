"""Contrastive losses on the features that a reward head reads: two views of a response are alike, all others are not.

The views are two forward passes of the same texts under different dropout masks. Features of both passes come row by
row in the same order. All losses are to be minimised. Source: Secrets of RLHF II (arXiv 2401.06080, section 3.1 and
appendix B.2), which adds SimCSE (arXiv 2104.08821) and SwAV (arXiv 2006.09882) to the ranking loss.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from guerdon.objectives.preference import bradley_terry
from guerdon.objectives.shapes import at_least_float32, check_not_empty, check_same_shape

Kind = Literal["simcse", "swav"]
Mode = Literal["pairs", "diff"]

BETA: dict[tuple[Kind, Mode], float] = {
    ("simcse", "pairs"): 1.0, ("simcse", "diff"): 1.0, ("swav", "pairs"): 0.1, ("swav", "diff"): 0.5
}  # fmt: skip
"""Published weight of the contrastive term in `combined_loss`."""
PROTOTYPES: dict[Mode, int] = {"pairs": 50, "diff": 20}
"""Published number K of SwAV's prototypes."""


def simcse(first: Tensor, second: Tensor, *, temperature: float = 0.05) -> Tensor:
    """Mean of -log softmax_j( cos(h_i, h'_j) / t ) at j = i: each row must find its other view among all rows.

    Args:
        first, second: features of the two views [N, d], not empty.
        temperature: t > 0. The paper gives none; 0.05 is SimCSE's: UNVERIFIED.
    Returns:
        Scalar >= 0; ln N when all features are equal.
    Raises:
        ValueError: not two equal [N, d], nothing given, or t <= 0.
    Source: SimCSE (arXiv 2104.08821), eq. 1; Secrets of RLHF II, section 3.1.
    """
    one, two = _features(first=first, second=second)
    similarity = one @ two.T / _positive(temperature, "temperature")
    return F.cross_entropy(similarity, torch.arange(len(one), device=one.device))


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Codes near softmax(scores / epsilon) that use every prototype equally: exp(scores / epsilon), made to have equal
    column sums and then unit rows, ``iterations`` times.

    Args:
        scores: similarity of N features to K prototypes [N, K], any real numbers: the work is in the log domain.
        epsilon: > 0, smaller is sharper. iterations: >= 1.
    Returns:
        [N, K] >= 0 without gradient. Rows sum to 1; columns sum to N / K as iterations grow.
    Raises:
        ValueError: not [N, K], nothing given, or an option out of range.
    Source: Sinkhorn and Knopp (1967); Cuturi (2013); SwAV (arXiv 2006.09882), section 3.1 and its defaults.
    """
    if scores.dim() != 2:
        raise ValueError(f"scores must be [N, K], got {list(scores.shape)}")
    check_not_empty(scores=scores)
    if iterations < 1:
        raise ValueError(f"iterations must be >= 1, got {iterations}")
    log_codes = at_least_float32(scores) / _positive(epsilon, "epsilon")
    for _ in range(iterations):
        # Up to a constant that the rows' own normalisation takes away again.
        log_codes = log_codes - torch.logsumexp(log_codes, dim=0, keepdim=True)
        log_codes = log_codes - torch.logsumexp(log_codes, dim=1, keepdim=True)
    return log_codes.exp()


def swav(
    first: Tensor,
    second: Tensor,
    prototypes: Tensor,
    *,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
) -> Tensor:
    """CE(q, p') + CE(q', p): the prototypes that one view is assigned must be predictable from the other.

    p = softmax(h . c / t), q = `sinkhorn` of h . c without gradient; features and prototypes are normalised here.

    Args:
        first, second: features of the two views [N, d], not empty.
        prototypes: c [K, d], learnt along with the model; see `PROTOTYPES`.
        temperature, epsilon, iterations: SwAV's defaults; the paper names none: UNVERIFIED.
    Returns:
        Scalar, mean over rows; 2 ln K when codes and predictions are uniform.
    Raises:
        ValueError: shapes do not fit, nothing given, or an option out of range.
    Source: SwAV (arXiv 2006.09882), eqs. 1-2; Secrets of RLHF II, section 3.1.
    """
    one, two = _features(first=first, second=second)
    if prototypes.dim() != 2 or prototypes.shape[1] != one.shape[1] or not len(prototypes):
        raise ValueError(f"prototypes must be [K, {one.shape[1]}], got {list(prototypes.shape)}")
    centres = F.normalize(at_least_float32(prototypes), dim=1)
    scores_one, scores_two = one @ centres.T, two @ centres.T
    _positive(temperature, "temperature")

    def cross_entropy(codes_of: Tensor, scores: Tensor) -> Tensor:
        codes = sinkhorn(codes_of, epsilon=epsilon, iterations=iterations)
        return -(codes * F.log_softmax(scores / temperature, dim=1)).sum(dim=1).mean()

    return cross_entropy(scores_one, scores_two) + cross_entropy(scores_two, scores_one)


def views(chosen: Tensor, rejected: Tensor, mode: Mode = "pairs") -> Tensor:
    """The set of features that is contrasted: "pairs" {h_c, h_r}, "diff" {h_c - h_r, h_r - h_c}; [N, d] -> [2N, d].

    In "pairs" a chosen response has its own rejected one among its negatives; in "diff" each row has its own negation.
    Raises ValueError for other shapes or another mode. Source: Secrets of RLHF II, section 3.1.1; "diff" in the reading
    of the system's card (which rows are positives was asked of the authors and not answered): UNVERIFIED.
    """
    check_same_shape(chosen=chosen, rejected=rejected)
    if mode == "pairs":
        return torch.cat([chosen, rejected])
    if mode == "diff":
        return torch.cat([chosen - rejected, rejected - chosen])
    raise ValueError(f"mode must be 'pairs' or 'diff', got {mode!r}")


def contrastive_reward_loss(
    chosen1: Tensor,
    rejected1: Tensor,
    chosen2: Tensor,
    rejected2: Tensor,
    *,
    kind: Kind = "simcse",
    mode: Mode = "pairs",
    prototypes: Tensor | None = None,
    temperature: float | None = None,
    epsilon: float = 0.05,
    iterations: int = 3,
) -> Tensor:
    """The contrastive term L_cl: `simcse` or `swav` between the two passes' `views`.

    Args:
        chosen1, rejected1: features [N, d] of the first pass, what the reward head reads; chosen2, rejected2: of the
            second. Which layer the paper takes is UNVERIFIED.
        prototypes: [K, d], for "swav" only. temperature: default that of the kind. epsilon, iterations: "swav" only.
    Returns:
        Scalar, without the weight `BETA`.
    Raises:
        ValueError: shapes do not fit, unknown kind or mode, prototypes missing or not wanted.
    Source: Secrets of RLHF II, section 3.1; SimCSE on pairs was its best.
    """
    first, second = views(chosen1, rejected1, mode), views(chosen2, rejected2, mode)
    if kind not in ("simcse", "swav"):
        raise ValueError(f"kind must be 'simcse' or 'swav', got {kind!r}")
    if (kind == "swav") == (prototypes is None):
        raise ValueError(f"kind {kind!r} {'needs' if prototypes is None else 'takes no'} prototypes")
    if prototypes is None:
        return simcse(first, second, temperature=0.05 if temperature is None else temperature)
    heat = 0.1 if temperature is None else temperature
    return swav(first, second, prototypes, temperature=heat, epsilon=epsilon, iterations=iterations)


def combined_loss(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], contrastive: Tensor, *, beta: float, **options: Any
) -> Tensor:
    """L_rm + beta L_cl, the ranking loss being the mean over the two passes.

    Args:
        first, second: (chosen, rejected) rewards of each pass, [N] each.
        contrastive: L_cl of the same batch. beta: >= 0, published in `BETA`.
        options: of `bradley_terry`, the same for both passes.
    Returns:
        Scalar.
    Raises:
        ValueError: beta < 0, or as `bradley_terry`.
    Source: Secrets of RLHF II, section 3.1 and appendix B.2.
    """
    if not beta >= 0:
        raise ValueError(f"beta must be >= 0, got {beta}")
    ranking = 0.5 * (bradley_terry(*first, **options) + bradley_terry(*second, **options))
    return ranking + beta * contrastive


def _features(**views: Tensor) -> list[Tensor]:
    """Unit rows; the zero row stays zero."""
    check_same_shape(**views)
    check_not_empty(**views)
    for name, view in views.items():
        if view.dim() != 2:
            raise ValueError(f"{name} must be [N, d], got {list(view.shape)}")
    return [F.normalize(at_least_float32(view), dim=1) for view in views.values()]


def _positive(value: float, name: str) -> float:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be > 0, got {value}")
    return value
