"""Process rewards made safe to climb: clip and delta of step scores, and their way onto tokens.

Source: On Designing Effective RL Reward at Training Time for LLM Reasoning (arXiv 2410.15115): rewarding each step by
its score pays for repeating plausible steps without bound; Clip and Delta bound the return.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Mode = Literal["none", "clip", "delta", "clip_delta", "normed"]
LastStep = Literal["drop", "keep"]


@dataclass(frozen=True)
class ShapedRewards:
    """Dense rewards of steps, and what a reader wants to know of them.

    per_step:       [B, K], zero where there is no step.
    eta:            [B], the threshold of each row; NaN where nothing was clipped.
    nonzero_share:  share of the steps whose reward is not zero: a reward that is dense in name only says so here.
    bound:          the largest total that any solution can get, however long; infinite where repetition pays.
    """

    per_step: Tensor
    eta: Tensor
    nonzero_share: float
    bound: float


def clip_steps(scores: Tensor, eta: Tensor | float) -> Tensor:
    """r_k = min(x_k - eta, 0): good steps get exactly 0, only bad ones are punished. Any shape, within [-eta, 0].

    Source: arXiv 2410.15115, Clip. Scores must lie in [0, 1] for the bound.
    """
    return (scores - eta).clamp(max=0)


def delta_steps(scores: Tensor, mask: Tensor, *, last_step: LastStep = "drop") -> Tensor:
    """r_k = x_k - x_{k+1} for k < K - 1, r_{K-1} = x_{K-1}, r_K = 0, K being each row's own number of steps -> [B, K].

    The sum from step k on is then x_k, whatever follows: a step is worth its own score and no more, so repetition pays
    nothing. The last step is left to the success reward; with ``last_step="keep"`` (ours) r_K = x_K instead and the
    differences run to the end. A row of one step gets 0.

    scores [B, K]; mask [B, K], true where there is a step, without gaps. Source: arXiv 2410.15115, Delta.
    """
    real = _steps(scores, mask)
    scores = torch.where(real, scores, torch.zeros_like(scores))
    counted = real if last_step == "keep" else _but_last(real)
    kept = torch.where(counted, scores, torch.zeros_like(scores))
    following = torch.cat([kept[:, 1:], torch.zeros_like(kept[:, :1])], dim=1)
    return kept - following


def shape_steps(
    scores: Tensor,
    mask: Tensor,
    *,
    mode: Mode = "clip_delta",
    eta: float | Literal["group_mean"] | tuple[Literal["quantile"], float] = "group_mean",
    alpha: float = 1.0,
    group_ids: Tensor | None = None,
    last_step: LastStep = "drop",
) -> ShapedRewards:
    """Dense rewards of steps scored in [0, 1] by a process reward model.

    scores, mask:  [B, K] as in `delta_steps`.
    mode:          "none" the scores themselves (can be hacked: here to be measured), "normed" scores over the row's
                   number of steps (UNVERIFIED normaliser), "clip", "delta", "clip_delta" (clip first, then delta: the
                   paper's best; the other order breaks the bound).
    eta:           of clip: a number in [0, 1], the mean score of all steps of the same question ("group_mean", of
                   ``group_ids`` [B]; without them of each row), or ("quantile", q) of all steps. The paper's value is
                   UNVERIFIED; its intent is that most steps get exactly 0.
    alpha:         weight of the dense reward beside the success reward.

    Raises ValueError for scores outside [0, 1] (apply the sigmoid first), a mask with gaps, or an unknown mode.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, got {mode!r}")
    real = _steps(scores, mask)
    held = scores[real]
    if held.numel() and not bool(((held >= 0) & (held <= 1)).all()):
        raise ValueError("step scores must be probabilities in [0, 1]; apply the sigmoid or the softmax first")
    threshold = torch.full((len(scores),), float("nan"), dtype=scores.dtype, device=scores.device)
    shaped = torch.where(real, scores, torch.zeros_like(scores))
    bound = float("inf")
    if mode in ("clip", "clip_delta"):
        threshold = _thresholds(scores, real, eta, group_ids)
        shaped = torch.where(real, clip_steps(scores, threshold[:, None]), torch.zeros_like(scores))
        bound = 0.0
    if mode in ("delta", "clip_delta"):
        shaped = delta_steps(shaped, real, last_step=last_step)
        bound = 1.0 if mode == "delta" else 0.0
    if mode == "normed":
        shaped = shaped / real.sum(dim=1, keepdim=True).clamp(min=1)
        bound = 1.0
    per_step = alpha * shaped
    dense = float((per_step[real] != 0).float().mean()) if held.numel() else 0.0
    return ShapedRewards(per_step, threshold, dense, alpha * bound if bound else 0.0)


def scatter_steps(per_step: Tensor, ends: Tensor, mask: Tensor, length: int) -> Tensor:
    """Rewards [B, K] put on the last token of each step -> [B, length], zero elsewhere.

    ends: [B, K], index of each step's last token. Two steps that end on one token add up: nothing is overwritten.
    Raises ValueError for an end outside the tokens.
    """
    real = _steps(per_step, mask)
    if ends.shape != per_step.shape:
        raise ValueError(f"ends must have the shape of the steps {list(per_step.shape)}, got {list(ends.shape)}")
    held = ends[real]
    if held.numel() and not bool(((held >= 0) & (held < length)).all()):
        raise ValueError(f"a step ends outside of {length} tokens")
    places = torch.where(real, ends, torch.zeros_like(ends))
    values = torch.where(real, per_step, torch.zeros_like(per_step))
    return torch.zeros(len(per_step), length, dtype=per_step.dtype, device=per_step.device).scatter_add(
        1, places, values
    )


def reward_to_go(rewards: Tensor, mask: Tensor, *, gamma: float = 1.0) -> Tensor:
    """G_t = r_t + gamma G_{t+1} over the tokens that count -> [B, T], zero where ``mask`` [B, T] is.

    Source: Williams 1992 (REINFORCE with reward-to-go).
    """
    if rewards.shape != mask.shape or rewards.ndim != 2:
        raise ValueError(f"rewards and mask must be [B, T] alike, got {list(rewards.shape)} and {list(mask.shape)}")
    total = torch.zeros_like(rewards[:, 0]) if rewards.shape[1] else rewards.new_zeros(len(rewards))
    found = torch.zeros_like(rewards)
    for t in reversed(range(rewards.shape[1])):
        total = torch.where(mask[:, t].bool(), rewards[:, t] + gamma * total, total)
        found[:, t] = torch.where(mask[:, t].bool(), total, torch.zeros_like(total))
    return found


def _steps(scores: Tensor, mask: Tensor) -> Tensor:
    if scores.ndim != 2 or scores.shape != mask.shape:
        raise ValueError(f"scores and mask must be [B, K] alike, got {list(scores.shape)} and {list(mask.shape)}")
    real = mask.bool()
    if bool((real[:, 1:] & ~real[:, :-1]).any()):
        raise ValueError("the mask of steps has a gap: steps stand at the beginning of their row")
    return real


def _but_last(real: Tensor) -> Tensor:
    return real & torch.cat([real[:, 1:], torch.zeros_like(real[:, :1])], dim=1)


def _thresholds(
    scores: Tensor,
    real: Tensor,
    eta: float | Literal["group_mean"] | tuple[Literal["quantile"], float],
    group_ids: Tensor | None,
) -> Tensor:
    rows = len(scores)
    if isinstance(eta, int | float):
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {eta}")
        return torch.full((rows,), float(eta), dtype=scores.dtype, device=scores.device)
    if isinstance(eta, tuple):
        kind, share = eta
        if kind != "quantile" or not 0 <= share <= 1:
            raise ValueError(f"eta must be a number, 'group_mean' or ('quantile', q in [0, 1]), got {eta!r}")
        value = torch.quantile(scores[real], share) if bool(real.any()) else scores.new_zeros(())
        return value.expand(rows)
    if eta != "group_mean":
        raise ValueError(f"eta must be a number, 'group_mean' or ('quantile', q), got {eta!r}")
    groups = torch.arange(rows, device=scores.device) if group_ids is None else group_ids
    if groups.shape != (rows,):
        raise ValueError(f"group_ids must name a question for each of the {rows} rows, got {list(groups.shape)}")
    place = torch.unique(groups, return_inverse=True)[1]
    held = torch.where(real, scores, torch.zeros_like(scores)).sum(dim=1)
    sums = scores.new_zeros(int(place.max()) + 1 if rows else 0).scatter_add(0, place, held)
    counts = torch.zeros_like(sums).scatter_add(0, place, real.sum(dim=1).to(sums))
    return (sums / counts.clamp(min=1))[place]
