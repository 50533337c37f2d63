"""The Bradley-Terry loss with everything that papers add to it, and its use on contrast pairs. To be minimised."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from guerdon.objectives.shapes import at_least_float32, check_not_empty, check_same_shape

LengthNorm = Literal["log"]


def bradley_terry(
    chosen: Tensor,
    rejected: Tensor,
    *,
    margin: float | Tensor = 0.0,
    label_smoothing: float | Tensor = 0.0,
    centre: float = 0.0,
    length_norm: LengthNorm | None = None,
    chosen_length: Tensor | None = None,
    rejected_length: Tensor | None = None,
    ties: Tensor | None = None,
    weight: Tensor | None = None,
    floor: float = 0.0,
    reduce: Literal["mean", "none"] = "mean",
) -> Tensor:
    """-(1 - a) log sigmoid(d) - a log sigmoid(-d) + centre (r_w + r_l)^2 with d = r_w - r_l - margin.

    In this order: r <- r / log(l + 1) if lengths count; the ranking term; the centring term on the same rewards. Plain
    Bradley-Terry is invariant to a constant added to all rewards; length normalisation and centring are not. Accuracy
    is to be computed without the margin.

    Args:
        chosen, rejected: rewards r_w and r_l, same shape (normally [N]), not empty. All other tensors broadcast to it.
        margin: inside the log-sigmoid, any sign. A negative one (strength of a pair that an ensemble holds for wrong)
            asks for no more than that the pair be not worse than it.
        label_smoothing: a in [0, 1], the probability that the label is wrong; a number or one a row. The best gap is
            margin + log((1 - a) / a); a = 1 is a flipped label.
        centre: lambda >= 0 (BaseReward swept 0 to 0.1 and kept 0; TRL's ``center_rewards_coefficient``).
        length_norm: "log" divides each reward by log(length + 1).
        chosen_length, rejected_length: response lengths l >= 1, in tokens; needed by, and only for, ``length_norm``.
        ties: bool; True rows have target 1/2 and no margin, so that their best gap is 0 whatever the other options say.
        weight: >= 0, one a row, not all zero; a row of weight 0 counts as absent.
        floor: f >= 0 in -log(sigmoid(d) + f). MOSS-RLHF's 1e-5 saturates at 11.51, and its gradient vanishes for pairs
            that are wrong by more; only to reproduce it.
        reduce: "mean" over rows (sum w L / sum w with weights), or "none" for w L of every row.
    Returns:
        Scalar or the rewards' shape; ln 2 a row where the gap equals the margin and nothing is centred.
    Raises:
        ValueError: shapes do not fit, nothing given, an option out of range, a length below 1 or missing.
    Sources: Bradley and Terry (1952); margin, Llama 2 (arXiv 2307.09288, eq. 2) and Secrets of RLHF II (arXiv
    2401.06080, eq. 6, read with the margin inside the log-sigmoid: as printed it stands outside and has no gradient);
    smoothing, the same, sec. 2.4; centring, length normalisation and their order, BaseReward (arXiv 2509.16127,
    sec. 4.3, algorithm 1); floor, the MOSS-RLHF code. No margin on ties: UNVERIFIED, ours.
    """
    check_same_shape(chosen=chosen, rejected=rejected)
    check_not_empty(chosen=chosen, rejected=rejected)
    if centre < 0 or floor < 0:
        raise ValueError(f"centre and floor must be >= 0, got {centre} and {floor}")
    if reduce not in ("mean", "none"):
        raise ValueError(f"reduce must be 'mean' or 'none', got {reduce!r}")
    r_w, r_l = at_least_float32(chosen), at_least_float32(rejected)
    if length_norm is not None:
        if length_norm != "log":
            raise ValueError(f"length_norm must be 'log' or None, got {length_norm!r}")
        r_w = r_w / _log_length(chosen_length, r_w, "chosen_length")
        r_l = r_l / _log_length(rejected_length, r_l, "rejected_length")
    elif chosen_length is not None or rejected_length is not None:
        raise ValueError("lengths are given but length_norm is None: nothing would read them")

    shift = _a_row(margin, r_w, "margin")
    wrong = _a_row(label_smoothing, r_w, "label_smoothing")
    if not bool(((wrong >= 0) & (wrong <= 1)).all()):
        raise ValueError("label_smoothing must be in [0, 1]")
    if ties is not None:
        if ties.dtype != torch.bool:
            raise ValueError(f"ties must be bool, got {ties.dtype}")
        tied = _a_row(ties, r_w, "ties").bool()
        shift, wrong = torch.where(tied, 0.0, shift), torch.where(tied, 0.5, wrong)
    gap = r_w - r_l - shift
    loss = (1 - wrong) * _surprise(gap, floor) + wrong * _surprise(-gap, floor)
    if centre:
        loss = loss + centre * (r_w + r_l) ** 2
    if weight is None:
        return loss if reduce == "none" else loss.mean()
    factor = _a_row(weight, r_w, "weight")
    if not bool((factor >= 0).all()) or not bool((factor > 0).any()):
        raise ValueError("weight must be >= 0 and not zero everywhere")
    loss = factor * loss
    return loss if reduce == "none" else loss.sum() / factor.sum()


def crossed_negatives(scores: Tensor, *, symmetric: bool = False, reduce: Literal["mean", "none"] = "mean") -> Tensor:
    """-log sigmoid(s00 - s01) - log sigmoid(s00 - s10): an instruction's own answer above both crossed combinations.

    A judge that does not read the instruction scores s00 = s10 and so cannot bring the second term below ln 2.

    Args:
        scores: [P, 2, 2], R(instruction i, answer j) of P pairs of similar instructions; the diagonal is right.
        symmetric: average this with the same from the other instruction's side, s11 above s10 and s01.
        reduce: "mean" over pairs or "none".
    Returns:
        Scalar or [P]; 2 ln 2 for a constant judge.
    Raises:
        ValueError: not [P, 2, 2], or no pair.
    Source: Contrast Instructions (arXiv 2309.16155): the two consistencies C_res and C_ins as a loss. The loss and its
    symmetric form are ours, a stronger baseline than the paper's augmentation.
    """
    if scores.dim() != 3 or scores.shape[1:] != (2, 2):
        raise ValueError(f"scores must be [P, 2, 2], got {list(scores.shape)}")
    first, answer, instruction, second = scores[:, 0, 0], scores[:, 0, 1], scores[:, 1, 0], scores[:, 1, 1]

    def side(own: Tensor) -> Tensor:
        return bradley_terry(own, answer, reduce=reduce) + bradley_terry(own, instruction, reduce=reduce)

    return 0.5 * (side(first) + side(second)) if symmetric else side(first)


def _surprise(gap: Tensor, floor: float) -> Tensor:
    """-log(sigmoid(gap) + floor); without a floor in the form that does not overflow."""
    return -F.logsigmoid(gap) if floor == 0 else -torch.log(torch.sigmoid(gap) + floor)


def _a_row(value: float | Tensor, like: Tensor, name: str) -> Tensor:
    """``value`` in the type and on the device of ``like``, checked to broadcast to its shape and no further."""
    made = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    try:
        fits = torch.broadcast_shapes(made.shape, like.shape) == like.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"{name} {list(made.shape)} does not broadcast to the rewards' shape {list(like.shape)}")
    return made


def _log_length(length: Tensor | None, like: Tensor, name: str) -> Tensor:
    if length is None:
        raise ValueError(f"length_norm='log' needs {name}")
    made = _a_row(length, like, name)
    if not bool((made >= 1).all()):
        raise ValueError(f"{name} must be >= 1: log(0 + 1) = 0 divides the reward of an empty response by zero")
    return torch.log1p(made)
