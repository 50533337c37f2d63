"""What a completion pays for its length, compared with the others of its group.

Lengths are in the caller's unit (tokens or words), one group a call unless ``group_ids`` says otherwise.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Side = Literal["short", "long", "two_sided"]
ApplyTo = Literal["all", "incorrect"]
Reference = Literal["mean_correct", "median_correct"]


def relative_length(lengths: Tensor, group_ids: Tensor | None = None) -> Tensor:
    """-clip((l - mean) / l, -1, 1) of each completion against its group's mean length -> [N] in [-1, 1].

    Shorter than the mean gains, longer loses; a length of 0 gains 1. Source: the released code of Self-Aligned Reward
    (arXiv 2509.05489), its simplified form of O1-Pruner (arXiv 2501.12570).
    """
    lengths, groups = _checked(lengths, group_ids)
    mean = _group_mean(lengths, torch.ones_like(lengths, dtype=torch.bool), groups)
    safe = lengths.clamp(min=1e-9)
    return -((lengths - mean) / safe).clamp(-1, 1)


def efficient_reasoning(lengths: Tensor, correct: Tensor, group_ids: Tensor | None = None) -> Tensor:
    """-2 (sigmoid((l - mean) / (std + 1e-5)) - 1/2) for right completions of groups with two or more right ones -> [N].

    Mean and standard deviation (over N) are of the right completions' lengths; all others get 0. In [-1, 1].
    Source: the released code of Self-Aligned Reward (arXiv 2509.05489), its form of arXiv 2502.04463.
    """
    lengths, groups = _checked(lengths, group_ids)
    right = _flags(correct, lengths)
    mean = _group_mean(lengths, right, groups)
    spread = _group_mean((lengths - mean) ** 2, right, groups).sqrt()
    enough = (
        torch.zeros(int(groups.max()) + 1, device=lengths.device).scatter_add(0, groups, right.float())[groups] >= 2
    )
    paid = -2 * (torch.sigmoid((lengths - mean) / (spread + 1e-5)) - 0.5)
    return torch.where(right & enough, paid, torch.zeros_like(paid))


def group_length_penalty(
    lengths: Tensor,
    scores: Tensor,
    *,
    p_max: float = 0.5,
    tau: float = 1.0,
    side: Side = "two_sided",
    apply_to: ApplyTo = "all",
    reference: Reference = "mean_correct",
    group_ids: Tensor | None = None,
) -> Tensor:
    """-p_max min(1, d) with d the distance to L*, the length of the group's right completions -> [N] in [-p_max, 0].

    d = max(0, 1 - l / L*) on the short side, max(0, l / L* - 1) on the long one. Right means scores >= tau; a group
    without a right completion pays nothing. ``apply_to="incorrect"`` spares the right ones.

    Source: HARMO (arXiv 2510.05283), eq. 2 in words; form and magnitudes are UNVERIFIED. Punishing short answers alone
    drives lengths up without end (its purpose is against brevity), so both sides are the default here.
    """
    for name, value, choices in (
        ("side", side, Side),
        ("apply_to", apply_to, ApplyTo),
        ("reference", reference, Reference),
    ):
        if value not in get_args(choices):
            raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, got {value!r}")
    if p_max < 0:
        raise ValueError(f"p_max must not be negative, got {p_max}")
    lengths, groups = _checked(lengths, group_ids)
    right = _flags(scores.to(lengths.dtype) >= tau, lengths)
    wanted = (
        _group_mean(lengths, right, groups) if reference == "mean_correct" else _group_median(lengths, right, groups)
    )
    share = lengths / wanted.clamp(min=1e-9)
    distance = torch.zeros_like(lengths)
    if side != "long":
        distance = distance + (1 - share).clamp(min=0)
    if side != "short":
        distance = distance + (share - 1).clamp(min=0)
    paid = -p_max * distance.clamp(max=1)
    counted = (
        torch.zeros(int(groups.max()) + 1, device=lengths.device).scatter_add(0, groups, right.float())[groups] > 0
    )
    if apply_to == "incorrect":
        counted = counted & ~right
    return torch.where(counted, paid, torch.zeros_like(paid))


def _checked(lengths: Tensor, group_ids: Tensor | None) -> tuple[Tensor, Tensor]:
    if lengths.ndim != 1 or not len(lengths):
        raise ValueError(f"lengths must be a non-empty [N], got {list(lengths.shape)}")
    held = lengths.to(torch.promote_types(lengths.dtype, torch.float32))
    if bool((held < 0).any()) or not bool(torch.isfinite(held).all()):
        raise ValueError("lengths must be finite and not negative")
    if group_ids is None:
        return held, torch.zeros(len(held), dtype=torch.long, device=held.device)
    if group_ids.shape != held.shape:
        raise ValueError(
            f"group_ids must have the shape of the lengths {list(held.shape)}, got {list(group_ids.shape)}"
        )
    return held, torch.unique(group_ids, return_inverse=True)[1].to(held.device)


def _flags(values: Tensor, like: Tensor) -> Tensor:
    if values.shape != like.shape:
        raise ValueError(f"one entry a completion is needed, got {list(values.shape)} for {list(like.shape)}")
    return values.bool()


def _group_mean(values: Tensor, counted: Tensor, groups: Tensor) -> Tensor:
    size = int(groups.max()) + 1
    held = torch.where(counted, values, torch.zeros_like(values))
    sums = torch.zeros(size, dtype=values.dtype, device=values.device).scatter_add(0, groups, held)
    counts = torch.zeros_like(sums).scatter_add(0, groups, counted.to(values.dtype))
    return (sums / counts.clamp(min=1))[groups]


def _group_median(values: Tensor, counted: Tensor, groups: Tensor) -> Tensor:
    found = torch.zeros_like(values)
    for group in torch.unique(groups):
        inside = groups == group
        held = values[inside & counted]
        found[inside] = held.quantile(0.5) if len(held) else 0.0
    return found
