"""Advantages of tokens from rewards on tokens: generalised advantage estimation, and whitening."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from guerdon.objectives.shapes import at_least_float32, check_same_shape

Whitening = Literal["correct", "paper_code"]


def token_gae(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """(advantages, returns) of the tokens that count, each [B, T], zero elsewhere.

    delta_t = r_t + gamma V_{t+1} - V_t, A_t = delta_t + gamma lam A_{t+1}, returns A + V; beyond the last token that
    counts V and A are 0. Tokens that do not count (a prompt, padding) are passed over.

    Source: Schulman et al. 2016 (arXiv 1506.02438), eq. 16; on sparse rewards of segments, Fine-Grained RLHF (arXiv
    2306.01693), where a holistic reward is the same with one reward at the end.
    """
    check_same_shape(rewards=rewards, values=values, mask=mask)
    if rewards.ndim != 2:
        raise ValueError(f"rewards must be [B, T], got {list(rewards.shape)}")
    for name, number in (("gamma", gamma), ("lam", lam)):
        if not 0 <= number <= 1:
            raise ValueError(f"{name} must lie in [0, 1], got {number}")
    rewards, values, counted = at_least_float32(rewards), at_least_float32(values), mask.bool()
    following, advantage = rewards.new_zeros(len(rewards)), rewards.new_zeros(len(rewards))
    found = torch.zeros_like(rewards)
    for t in reversed(range(rewards.shape[1])):
        here = counted[:, t]
        step = rewards[:, t] + gamma * following - values[:, t] + gamma * lam * advantage
        advantage = torch.where(here, step, advantage)
        following = torch.where(here, values[:, t], following)
        found[:, t] = torch.where(here, step, torch.zeros_like(step))
    return found, torch.where(counted, found + values, torch.zeros_like(found))


def whiten(
    x: Tensor, mask: Tensor, *, shift_mean: bool = True, kind: Whitening = "correct", eps: float = 1e-8
) -> Tensor:
    """x [B, T] to mean 0 (``shift_mean``) and standard deviation 1 over what counts; zero elsewhere.

    kind "paper_code" divides by the square root of the standard deviation, as the released code of Fine-Grained RLHF
    (arXiv 2306.01693) does by mistake: it takes the deviation for the variance. Only for comparison with its numbers.
    """
    check_same_shape(x=x, mask=mask)
    counted = mask.bool()
    held = at_least_float32(x)[counted]
    if held.numel() < 2:
        raise ValueError(f"whitening needs at least 2 values that count, got {held.numel()}")
    mean, deviation = held.mean(), held.std()
    scale = torch.rsqrt(deviation + eps) if kind == "paper_code" else 1 / (deviation + eps)
    moved = (x - mean) * scale if shift_mean else (x - mean) * scale + mean
    return torch.where(counted, moved, torch.zeros_like(moved))
