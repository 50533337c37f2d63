"""How much a question explains its answer: the self-aligned reward, from log-probabilities of the policy itself."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from guerdon.objectives.shapes import at_least_float32, check_same_shape

Variant = Literal["relative", "difference", "log", "confidence"]


def self_aligned(
    with_question: Tensor,
    without_question: Tensor,
    mask: Tensor,
    *,
    variant: Variant = "relative",
    clip: tuple[float, float] | None = (-1.0, 1.0),
) -> Tensor:
    """R_SA = 1 - ppl(a|q) / ppl(a) of each answer -> [B], from log-probabilities of its tokens [B, T].

    with_question, without_question:  log P(a_j | q, a_<j) and log P(a_j | a_<j), by the same weights, at the sampling
        temperature, without gradient; "without" means the same template around an empty question.
    mask:     [B, T], tokens of the answer. An empty answer gets 0.
    variant:  "relative" as above; "difference" ppl(a) - ppl(a|q); "log" the difference of the mean log-probabilities
              (log perplexities); "confidence" 5 - ppl(a|q), which never looks at the question's share.
    clip:     (low, high) of the result, None for none. The relative form lies below 1 by itself.

    Raises ValueError for shapes, a positive log-probability, an unknown variant.
    Source: Self-Aligned Reward (arXiv 2509.05489); the variants are those of its released code.
    """
    if variant not in get_args(Variant):
        raise ValueError(f"variant must be one of {', '.join(get_args(Variant))}, got {variant!r}")
    check_same_shape(with_question=with_question, without_question=without_question, mask=mask)
    asked, alone = (_mean_log_prob(one, mask) for one in (with_question, without_question))
    if variant == "relative":
        # 1 - exp(-mean v), with v the gain of each token: no perplexity is formed that could overflow.
        value = -torch.expm1(alone - asked)
    elif variant == "difference":
        value = torch.exp(-alone) - torch.exp(-asked)
    elif variant == "log":
        value = asked - alone
    else:
        value = 5 - torch.exp(-asked)
    if clip is not None:
        value = value.clamp(*clip)
    return torch.where(mask.bool().any(dim=1), value, torch.zeros_like(value))


def token_gains(with_question: Tensor, without_question: Tensor, mask: Tensor) -> Tensor:
    """v_j = log P(a_j | q, a_<j) - log P(a_j | a_<j) -> [B, T], zero where ``mask`` is: where the question speaks.

    R_SA = 1 - exp(-mean_j v_j). Source: arXiv 2509.05489, the token view.
    """
    check_same_shape(with_question=with_question, without_question=without_question, mask=mask)
    gains = at_least_float32(with_question) - at_least_float32(without_question)
    return torch.where(mask.bool(), gains, torch.zeros_like(gains))


def accuracy_efficiency(
    accuracy: float, length: float, base_accuracy: float, base_length: float, *, gamma: float = 5.0
) -> float:
    """AES = (l0 - l) / l0 + gamma (acc - acc0) / acc0: relative shortening plus weighted relative accuracy.

    Source: arXiv 2509.05489; which model is the reference is UNVERIFIED (here whatever the caller names).
    """
    if base_accuracy <= 0 or base_length <= 0:
        raise ValueError(f"the reference needs positive accuracy and length, got {base_accuracy} and {base_length}")
    return (base_length - length) / base_length + gamma * (accuracy - base_accuracy) / base_accuracy


def _mean_log_prob(log_probs: Tensor, mask: Tensor) -> Tensor:
    held = at_least_float32(log_probs)
    counted = mask.bool()
    if bool((held[counted] > 1e-6).any()):
        raise ValueError("log-probabilities must not be positive")
    total = torch.where(counted, held, torch.zeros_like(held)).sum(dim=1)
    return total / counted.sum(dim=1).clamp(min=1)
