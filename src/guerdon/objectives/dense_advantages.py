"""Group-relative advantages of tokens from rewards that lie on segments: GRPO where a reward says which part earned it.

Sources: GRPO and its process supervision (arXiv 2402.03300, section 4.1.3); one reward a segment and several aspects,
Fine-Grained RLHF (arXiv 2306.01693). The baseline by segment is ours: the papers use a critic (PPO), or normalise the
rewards of steps before they are summed, which breaks the bound that Clip and Delta give a return (arXiv 2410.15115).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from guerdon.objectives.shapes import at_least_float32
from guerdon.objectives.step_rewards import reward_to_go

Baseline = Literal["segment", "group"]
Scale = Literal["group", "batch", "none"]


def dense_advantages(
    rewards: Tensor,
    segments: Tensor,
    mask: Tensor,
    group_ids: Tensor,
    *,
    valid: Tensor | None = None,
    gamma: float = 1.0,
    baseline: Baseline = "segment",
    scale: Scale = "group",
    eps: float = 1e-4,
) -> Tensor:
    """A_t = sum over parts of (G_t - baseline), over a deviation -> float [N, T], zero where ``mask`` is.

    G_t is the part's return-to-go. With one reward at the end of each completion, whatever its length, this is GRPO's
    (r - mean r) / (deviation + eps) on every token.

    rewards:    [P, N, T] for P parts (rewards or aspects, weighted already), zero where nothing is paid.
    segments:   [P, N, T] whole numbers: the segments of the part that have ended before the token.
    mask:       [N, T], true for tokens that count.
    group_ids:  [N], one number a prompt.
    valid:      [P, N]; false where the part has no score: it then moves neither the row nor the baselines.
    gamma:      discount a token, in [0, 1].
    baseline:   "segment": the mean of G over the group's completions that have this segment, each where it begins; the
                only one to reach a segment is compared with nobody and gets 0 for it. "group": the mean of the total
                return; later tokens, with less left to earn, then look bad (no bias, but more variance).
    scale:      "group": the deviation of the centred returns, a completion's tokens counted as one, within a group;
                "batch": the sample deviation of the total returns of the batch, as TRL has it; "none": 1.

    Raises ValueError for shapes that do not fit, numbers out of range, or an unknown choice.
    """
    _check(rewards, segments, mask, group_ids, valid, gamma, baseline, scale)
    rewards, counted = at_least_float32(rewards), mask.bool()
    parts, rows, _ = rewards.shape
    usable = torch.ones(parts, rows, dtype=torch.bool, device=rewards.device) if valid is None else valid.bool()
    usable = usable & counted.any(dim=1)
    groups = torch.unique(group_ids, return_inverse=True)[1]
    count = int(groups.max()) + 1 if rows else 0
    paid = torch.where(usable[:, :, None] & counted, rewards, torch.zeros_like(rewards))
    returns = torch.stack([reward_to_go(one, counted, gamma=gamma) for one in paid])
    total = paid_total(returns, counted)
    centred = torch.zeros_like(rewards[0])
    for part in range(parts):
        kept = usable[part]
        if baseline == "group":
            level = _group_mean(total[part], kept, groups, count)[groups][:, None].expand_as(centred)
        else:
            level = _segment_level(returns[part], segments[part], counted & kept[:, None], groups)
        centred = centred + torch.where(kept[:, None] & counted, returns[part] - level, torch.zeros_like(centred))
    if scale == "none":
        return centred
    scored = usable.any(dim=0)
    if scale == "batch":
        sums = (total * usable).sum(dim=0)[scored]
        return centred / ((sums.std() if len(sums) > 1 else sums.new_zeros(())) + eps)
    square = (centred**2).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
    size = torch.zeros(count, dtype=square.dtype, device=square.device).index_add(0, groups, scored.to(square))
    variance = torch.zeros_like(size).index_add(0, groups, square * scored) / (size - 1).clamp(min=1)
    return centred / (variance.sqrt()[groups][:, None] + eps)


def paid_total(returns: Tensor, mask: Tensor) -> Tensor:
    """The return at each row's first token that counts: [P, N, T] -> [P, N]; 0 for a row without tokens."""
    first = mask.to(torch.int64).argmax(dim=1)
    return returns.gather(2, first.expand(returns.shape[0], -1)[..., None])[..., 0]


def _segment_level(returns: Tensor, segments: Tensor, counted: Tensor, groups: Tensor) -> Tensor:
    """For each token, the mean over its group of G where this segment begins."""
    rows, length = returns.shape
    begins = counted.clone()
    begins[:, 1:] &= ~counted[:, :-1] | (segments[:, 1:] != segments[:, :-1])
    width = int(segments.max()) + 1 if segments.numel() else 1
    key = groups[:, None] * width + segments
    cells = (int(groups.max()) + 1 if rows else 0) * width
    sums = returns.new_zeros(cells).index_add(0, key[begins], returns[begins])
    number = returns.new_zeros(cells).index_add(0, key[begins], torch.ones_like(returns[begins]))
    return (sums / number.clamp(min=1))[key]


def _group_mean(values: Tensor, kept: Tensor, groups: Tensor, count: int) -> Tensor:
    sums = values.new_zeros(count).index_add(0, groups, values * kept)
    return sums / values.new_zeros(count).index_add(0, groups, kept.to(values)).clamp(min=1)


def _check(
    rewards: Tensor, segments: Tensor, mask: Tensor, group_ids: Tensor, valid: Tensor | None, gamma: float,
    baseline: str, scale: str,
) -> None:  # fmt: skip
    if rewards.ndim != 3 or rewards.shape != segments.shape or rewards.shape[1:] != mask.shape:
        raise ValueError(
            f"rewards and segments must be [P, N, T] and mask [N, T], got {list(rewards.shape)}, "
            f"{list(segments.shape)} and {list(mask.shape)}"
        )
    if group_ids.shape != rewards.shape[1:2] or group_ids.is_floating_point():
        raise ValueError(f"group_ids must be {rewards.shape[1]} whole numbers, got {list(group_ids.shape)}")
    if valid is not None and valid.shape != rewards.shape[:2]:
        raise ValueError(f"valid must be {list(rewards.shape[:2])}, got {list(valid.shape)}")
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must lie in [0, 1], got {gamma}")
    for name, choice, choices in (("baseline", baseline, get_args(Baseline)), ("scale", scale, get_args(Scale))):
        if choice not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {choice!r}")
