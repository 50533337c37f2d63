"""How far a policy's next-token distributions lie from the uniform one: confidence without labels."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

__all__ = ["Form", "self_certainty", "token_certainty"]

Form = Literal["kl_pu", "kl_up", "scaled"]


def token_certainty(logits: Tensor, *, form: Form, chunk: int = 16_384, ceiling: float = 100.0) -> Tensor:
    """Certainty of each distribution, >= 0, float32 [...]; 0 for a uniform one in every form.

    "kl_pu":   KL(p || U) = log V - H(p), in [0, log V]: Shop-R1's equation 3 without its factor 1 / V, with which the
               bonus is below 1e-6 and does nothing.
    "kl_up":   KL(U || p) = -(1/V) sum_i log(V p_i): the original self-certainty, and the only form whose size fits
               Shop-R1's figure (about 26). It has no upper end, so it is held at ``ceiling`` nats.
    "scaled":  1 - H(p) / log V, in [0, 1].

    Args:
        logits: [..., V] with V >= 2; a logit of -inf is a token that cannot come.
        chunk: entries of the vocabulary taken to float32 at once.
    Raises:
        ValueError: an unknown form, V < 2, or a chunk or ceiling that is not positive.
    Source: Shop-R1 (arXiv 2507.17842) equation 3; Kang et al. 2025 (arXiv 2502.18581) for "kl_up".
    """
    if form not in get_args(Form):
        raise ValueError(f"form must be one of {', '.join(get_args(Form))}, got {form!r}")
    size = logits.shape[-1] if logits.dim() else 0
    if size < 2:
        raise ValueError(f"logits must be [..., V] with V >= 2, got {list(logits.shape)}")
    if chunk < 1 or not ceiling > 0:
        raise ValueError(f"chunk and ceiling must be above 0, got {chunk} and {ceiling}")
    pieces = logits.split(chunk, dim=-1)
    total = torch.stack([piece.float().logsumexp(dim=-1) for piece in pieces]).logsumexp(dim=0)
    if form == "kl_up":
        # float64 sums: the mean of 150,000 logits would lose digits that the difference needs.
        mean = sum(piece.double().sum(dim=-1) for piece in pieces) / size
        return (total.double() - mean - math.log(size)).clamp(0.0, ceiling).float()  # type: ignore[union-attr]
    entropy = torch.zeros_like(total)
    for piece in pieces:
        log_p = piece.float() - total[..., None]
        entropy = entropy - torch.where(log_p.isneginf(), 0.0, log_p.exp() * log_p).sum(dim=-1)
    certainty = (math.log(size) - entropy).clamp(min=0.0)
    return certainty if form == "kl_pu" else certainty / math.log(size)


def self_certainty(logits: Tensor, mask: Tensor, *, form: Form, chunk: int = 16_384, ceiling: float = 100.0) -> Tensor:
    """Mean certainty over the tokens of a sequence, float32 [...]; NaN where no token counts.

    The most certain texts are short, generic and repeated ones, so it is a bonus to be watched, never a goal.

    Args:
        logits: [..., T, V], those that each token was drawn from. mask: bool [..., T], the tokens that count.
        form, chunk, ceiling: of `token_certainty`; which form is meant has to be said.
    Raises:
        ValueError: shapes do not fit, and as `token_certainty`.
    """
    if logits.dim() < 2 or mask.shape != logits.shape[:-1]:
        raise ValueError(f"mask must be {list(logits.shape[:-1])}, got {list(mask.shape)}")
    values = token_certainty(logits, form=form, chunk=chunk, ceiling=ceiling)
    counted = mask.to(values.dtype)
    return torch.where(mask, values, 0.0).sum(dim=-1) / counted.sum(dim=-1)
