"""Group-relative advantages: how much better a sample is than the others drawn for the same prompt.

Sources: Flow-GRPO (arXiv 2505.05470; its per-prompt tracker, modes and batch-wide deviation), RealGen (arXiv
2512.00473; one normalisation for each reward, then a weighted mean), MixGRPO (arXiv 2507.21802; per-reward z-scores),
DanceGRPO (arXiv 2505.07818; sample deviation).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Spread = Literal["group", "batch"]
Combine = Literal["per_reward_z", "sum_then_z"]
Mode = Literal["grpo", "rwr", "sft", "dpo"]


def group_advantages(
    rewards: Tensor,
    group_ids: Tensor,
    *,
    valid: Tensor | None = None,
    std: Spread = "group",
    eps: float = 1e-4,
    floor: float = 0.0,
    combine: Combine = "per_reward_z",
    weights: Sequence[float] | Tensor | None = None,
    normalise_weights: bool = True,
    mode: Mode = "grpo",
    clip: float | None = None,
    unbiased: bool = False,
) -> Tensor:
    """One advantage a sample from one or several rewards.

    mode "grpo": A = (r - group mean) / (max(deviation, floor) + eps). A group whose valid rewards are all equal, a
    group of one included, gets exactly 0. "rwr": A = r. "sft": 1 for the group's best (all of them when tied), else 0.
    "dpo": +1 for the best, -1 for the worst (the first of each when tied), else 0; when all are equal the group's
    second sample counts as best and its first as worst, as in the reference code, and a group of one gets 0.

    combine "per_reward_z" applies the mode to each reward on its own and takes the weighted mean, so that no reward
    dominates by its range; "sum_then_z" sums the weighted raw rewards and applies the mode once. With one reward they
    agree up to the weight.

    Args:
        rewards: [N], or [K, N] for K rewards. NaN means that there is no score.
        group_ids: integers [N]; samples of one prompt share an id. With all ids equal this is the global z-score for
            groups of one.
        valid: bool [N] or [K, N]. Invalid entries, like NaN ones, are left out of every statistic. A reward that is
            missing for a sample counts as 0 (its group's mean) under "per_reward_z", which keeps the group's sum at
            zero; under "sum_then_z" a sample that lacks any reward of non-zero weight counts as invalid. A sample
            without any usable reward gets advantage 0 in every mode.
        std: deviation over the "group", or over the whole "batch" (each reward's own); the mean is always the group's.
        eps: added to the deviation: 1e-4 in Flow-GRPO and RealGen, 1e-8 in DanceGRPO.
        floor: smallest deviation used. Without it a near-tied group is blown up to |A| as large as sqrt(G - 1).
        weights: one a reward, default 1 each.
        normalise_weights: divide by the sum of weights ("per_reward_z" only). RealGen does so in its guard and V2
            trainers, not in the others.
        clip: limit of |A| after combination (5 in Flow-GRPO and RealGen).
        unbiased: divide by n - 1 instead of n (DanceGRPO).
    Returns:
        float32 [N] on the rewards' device; computed in float64.
    Raises:
        ValueError: shapes do not fit, a valid reward is infinite, weights sum to nothing positive while normalised, or
            an unknown choice.
    """
    scores, usable, groups, count = _prepare(rewards, group_ids, valid)
    if eps < 0 or floor < 0:
        raise ValueError(f"eps and floor must be >= 0, got {eps} and {floor}")
    if clip is not None and clip <= 0:
        raise ValueError(f"clip must be > 0, got {clip}")
    if std not in ("group", "batch"):
        raise ValueError(f"std must be 'group' or 'batch', got {std!r}")
    if mode not in ("grpo", "rwr", "sft", "dpo"):
        raise ValueError(f"mode must be 'grpo', 'rwr', 'sft' or 'dpo', got {mode!r}")
    weight = torch.ones(len(scores)) if weights is None else torch.as_tensor(weights).detach()
    weight = weight.to("cpu", torch.float64)
    if tuple(weight.shape) != (len(scores),):
        raise ValueError(f"weights must be [{len(scores)}], one a reward, got {list(weight.shape)}")

    if combine == "sum_then_z":
        usable = usable[weight != 0].all(dim=0, keepdim=True)
        scores = torch.where(usable, (weight[:, None] * scores).sum(dim=0, keepdim=True), 0.0)
        weight = torch.ones(1, dtype=torch.float64)
    elif combine == "per_reward_z":
        if normalise_weights:
            if not weight.sum() > 0:
                raise ValueError(
                    f"weights sum to {float(weight.sum()):g}; set normalise_weights=False to use them as they are"
                )
            weight = weight / weight.sum()
    else:
        raise ValueError(f"combine must be 'per_reward_z' or 'sum_then_z', got {combine!r}")

    total = torch.zeros(scores.shape[1], dtype=torch.float64)
    for w, row, keep in zip(weight, scores, usable, strict=True):
        if mode == "grpo":
            advantage = _standardised(row, keep, groups, count, std, eps, floor, unbiased)
        elif mode == "rwr":
            advantage = row
        else:
            advantage = _picked(row, keep, groups, count, mode)
        total += w * torch.where(keep, advantage, 0.0)
    if clip is not None:
        total = total.clamp(-clip, clip)
    return total.to(rewards.device, torch.float32)


def constant_terms(rewards: Tensor, group_ids: Tensor, valid: Tensor | None = None) -> list[int]:
    """Indices of the rewards that are constant within every group, and so cancel out of every group-relative advantage.

    Typical causes: a term that depends on the prompt only, a saturated detector, a parser that always fails the same
    way. Such a term still dilutes the others: its weight counts in the weighted mean, and under "sum_then_z" with the
    batch's deviation its spread between prompts enlarges the divisor.

    Args:
        rewards: [K, N] or [N]; group_ids, valid: as in `group_advantages`. A reward without two usable scores in any
            group is constant.
    Returns:
        Ascending indices into the K rewards.
    Raises:
        ValueError: shapes do not fit, or a valid reward is infinite.
    """
    scores, usable, groups, count = _prepare(rewards, group_ids, valid)
    return [k for k in range(len(scores)) if bool(_tied(scores[k], usable[k], groups, count).all())]


def _prepare(rewards: Tensor, group_ids: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor, int]:
    """Rewards [K, N] in float64 with 0 where unusable, the mask [K, N], group index [N] and the number of groups; all
    on the CPU, where float64 always exists and the few numbers of an epoch cost nothing."""
    if rewards.dim() not in (1, 2):
        raise ValueError(f"rewards must be [N] or [K, N], got {list(rewards.shape)}")
    scores = rewards.detach().to("cpu", torch.float64)
    scores = scores[None] if scores.dim() == 1 else scores
    n = scores.shape[1]
    if tuple(group_ids.shape) != (n,):
        raise ValueError(f"group_ids must be [{n}], one a sample, got {list(group_ids.shape)}")
    if group_ids.is_floating_point() or group_ids.is_complex():
        raise ValueError(f"group_ids must be integers, got {group_ids.dtype}")
    usable = ~torch.isnan(scores)
    if valid is not None:
        mask = valid.detach().to("cpu", torch.bool)
        if tuple(mask.shape) not in {(n,), tuple(scores.shape)}:
            raise ValueError(f"valid must be [{n}] or {list(scores.shape)}, got {list(mask.shape)}")
        usable = usable & mask
    if bool(torch.isinf(scores[usable]).any()):
        raise ValueError("a valid reward is infinite; mark the sample invalid instead")
    groups = torch.unique(group_ids.detach().to("cpu"), return_inverse=True)[1]
    count = int(groups.max()) + 1 if n else 0
    return torch.where(usable, scores, 0.0), usable, groups, count


def _tied(row: Tensor, keep: Tensor, groups: Tensor, count: int) -> Tensor:
    """bool [groups]: fewer than two usable scores, or all of them equal. Decided by comparison, since a mean of equal
    numbers may be off by a rounding error that a tiny deviation would then blow up."""
    highest = torch.full((count,), -torch.inf, dtype=row.dtype).scatter_reduce(0, groups[keep], row[keep], "amax")
    lowest = torch.full((count,), torch.inf, dtype=row.dtype).scatter_reduce(0, groups[keep], row[keep], "amin")
    return highest <= lowest


def _standardised(
    row: Tensor, keep: Tensor, groups: Tensor, count: int, std: Spread, eps: float, floor: float, unbiased: bool
) -> Tensor:
    size = torch.zeros(count, dtype=row.dtype).index_add(0, groups, keep.to(row.dtype))
    mean = torch.zeros_like(size).index_add(0, groups, row) / size.clamp(min=1)
    centred = torch.where(keep, row - mean[groups], 0.0)
    lost = 1 if unbiased else 0
    if std == "group":
        squares = torch.zeros_like(size).index_add(0, groups, centred**2)
        deviation = torch.sqrt(squares / (size - lost).clamp(min=1))[groups]
    else:
        kept = row[keep]
        squares = ((kept - kept.mean()) ** 2).sum()
        deviation = torch.sqrt(squares / max(len(kept) - lost, 1)).expand_as(row)
    moving = keep & ~_tied(row, keep, groups, count)[groups]
    scale = torch.where(moving, deviation.clamp(min=floor) + eps, 1.0)
    return torch.where(moving, centred / scale, 0.0)


def _picked(row: Tensor, keep: Tensor, groups: Tensor, count: int, mode: Mode) -> Tensor:
    chosen = torch.zeros_like(row)
    for group in range(count):
        members = torch.nonzero(keep & (groups == group)).flatten()
        if len(members) == 0:
            continue
        scores = row[members]
        if mode == "sft":
            chosen[members[scores == scores.max()]] = 1.0
        elif len(members) > 1:
            best, worst = int(scores.argmax()), int(scores.argmin())
            if scores[best] == scores[worst]:
                best, worst = 1, 0
            else:
                best = int(torch.nonzero(scores == scores[best])[0])
                worst = int(torch.nonzero(scores == scores[worst])[0])
            chosen[members[best]], chosen[members[worst]] = 1.0, -1.0
    return chosen
