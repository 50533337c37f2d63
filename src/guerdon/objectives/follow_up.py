"""What the likelihoods of positive and negative follow-up utterances say about the response that they would follow."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from guerdon.core.errors import GuerdonError, unknown

__all__ = ["Combine", "follow_up_value", "utterance_log_likelihood"]

Combine = Literal["mean_difference", "log_odds", "positive_only", "negative_only"]


def utterance_log_likelihood(log_probs: Tensor, mask: Tensor, *, length_norm: bool = True) -> Tensor:
    """ell = (1/|f|) sum_t log q(f_t | ..., f_<t), nats a token, [N]; without ``length_norm`` the sum, nats.

    log_probs: [N, T], of the utterance's tokens. mask: bool [N, T], True at its tokens. Raises GuerdonError for other
    shapes or an utterance without tokens.

    Source: Follow-up Likelihood as Reward (arXiv 2409.13948).
    """
    if log_probs.ndim != 2 or log_probs.shape != mask.shape:
        raise GuerdonError(f"log_probs and mask must both be [N, T], got {list(log_probs.shape)}, {list(mask.shape)}")
    count = mask.sum(dim=1)
    if bool((count == 0).any()):
        raise GuerdonError(f"utterance {int((count == 0).nonzero()[0])} has no tokens, so it has no likelihood")
    total = torch.where(mask, log_probs, torch.zeros_like(log_probs)).sum(dim=1)
    return total / count if length_norm else total


def follow_up_value(
    positive: Tensor,
    negative: Tensor,
    *,
    combine: Combine = "mean_difference",
    positive_weights: Tensor | None = None,
    negative_weights: Tensor | None = None,
) -> Tensor:
    """One dimension's value [...] of the likelihoods of its follow-ups, positive [..., P] and negative [..., M].

    combine:  "mean_difference": mean ell+ - mean ell-; "log_odds": log mean exp ell+ - log mean exp ell-, which the
              likeliest utterance of each side decides; "positive_only": mean ell+; "negative_only": -mean ell-.
    weights:  of the utterances, [P] and [M], not negative, not all 0; equal by default.

    Swapping the two sets negates the first two. Which rule the paper merges its utterances by is not in its code: the
    mean difference is UNVERIFIED, the others are its card's. Raises GuerdonError for an empty set or such weights.
    Source: Follow-up Likelihood as Reward (arXiv 2409.13948).
    """
    if combine not in get_args(Combine):
        raise unknown("way to combine follow-ups", combine, get_args(Combine))
    first, second = _shares(positive, positive_weights), _shares(negative, negative_weights)
    if combine == "log_odds":
        return torch.logsumexp(positive + first.log(), dim=-1) - torch.logsumexp(negative + second.log(), dim=-1)
    liked, disliked = (positive * first).sum(dim=-1), (negative * second).sum(dim=-1)
    if combine == "positive_only":
        return liked
    return -disliked if combine == "negative_only" else liked - disliked


def _shares(values: Tensor, weights: Tensor | None) -> Tensor:
    count = values.shape[-1] if values.ndim else 0
    if not count:
        raise GuerdonError("a set of follow-ups holds no utterance")
    if weights is None:
        return values.new_full((count,), 1 / count)
    total = float(weights.sum())
    if weights.shape != (count,) or bool((weights < 0).any()) or not (math.isfinite(total) and total > 0):
        raise GuerdonError(f"{count} utterances need as many weights of at least 0, not all 0; got {weights.tolist()}")
    return (weights / total).to(values)
