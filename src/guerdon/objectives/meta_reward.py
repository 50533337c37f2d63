"""MetaRM's measure of how well a reward model still tells responses of the shifted policy apart."""

from __future__ import annotations

import torch
from torch import Tensor

from guerdon.objectives.shapes import at_least_float32, check_not_empty


def difference_loss(rewards: Tensor) -> Tensor:
    """J = (2 / k^2) sum over i < j of sigmoid(|r_i - r_j|), averaged over prompts; large = responses told apart.

    Grows without end of the head's scale, so never read it alone: see `spread_ratio`. Equal rewards get gradient zero
    from one another.

    Args:
        rewards: [..., k], the rewards of k >= 2 unlabelled responses to each prompt.
    Returns:
        Scalar within `bounds`.
    Raises:
        ValueError: fewer than two responses, or no prompt.
    Source: Secrets of RLHF II (arXiv 2401.06080), section 3.2; MetaRM (arXiv 2405.00438). k is not printed: UNVERIFIED.
    """
    gaps = _gaps(rewards)
    k = rewards.shape[-1]
    return 2 / k**2 * torch.sigmoid(gaps).sum(dim=-1).mean()


def bounds(k: int) -> tuple[float, float]:
    """Least (all rewards equal) and greatest (all infinitely apart) value of J: (k - 1) / 2k and (k - 1) / k.

    Raises ValueError for k < 2. Source: k (k - 1) / 2 pairs of sigmoid 1/2 and of sigmoid 1.
    """
    if k < 2:
        raise ValueError(f"a difference needs k >= 2 responses, got {k}")
    return (k - 1) / (2 * k), (k - 1) / k


def spread_ratio(shifted: Tensor, reference: Tensor) -> Tensor:
    """Mean |r_i - r_j| on responses of the shifted policy over the same on responses that the model was trained on.

    Unlike J it does not change with the head's scale or offset: 1 = the shifted responses are told apart as widely.

    Args:
        shifted, reference: [..., k] and [..., k'], k, k' >= 2.
    Returns:
        Scalar >= 0; inf or nan if the reference rewards are all equal.
    Raises:
        ValueError: fewer than two responses, or no prompt.
    Source: ours, against J's inflation by scale.
    """
    return _gaps(shifted).mean() / _gaps(reference).mean()


def _gaps(rewards: Tensor) -> Tensor:
    """|r_i - r_j| of every pair i < j: [..., k (k - 1) / 2]."""
    if rewards.dim() == 0 or rewards.shape[-1] < 2:
        raise ValueError(f"rewards must be [..., k] with k >= 2, got {list(rewards.shape)}")
    check_not_empty(rewards=rewards)
    r, k = at_least_float32(rewards), rewards.shape[-1]
    first, second = torch.triu_indices(k, k, offset=1, device=r.device)
    return (r[..., first] - r[..., second]).abs()
