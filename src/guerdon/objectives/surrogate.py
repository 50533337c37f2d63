"""Clipped policy objectives for denoising steps: the plain ratio, and GRPO-Guard's.

All losses are to be minimised: mean max(-A rho, -A clip(rho, 1 - e, 1 + e)). With the policy still the one that
sampled, rho = 1 exactly in both forms.
"""

from __future__ import annotations

import torch
from torch import Tensor

from guerdon.objectives.shapes import Reduce, at_least_float32, check_same_shape, over_sample_dims, per_sample

Clip = float | tuple[float, float]


def clipped_surrogate(
    logp: Tensor, logp_old: Tensor, adv: Tensor, clip: Clip, valid: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's clipped objective on rho = exp(logp - logp_old).

    Args:
        logp, logp_old, adv: same shape ([B] or [S, B]); the old log-prob and the advantage are constants (detached).
        clip: e, or (e_low, e_high), > 0. With the mean log-prob of an image the useful range is 1e-4 to 1e-6.
        valid: bool, same shape; entries that are False take no part, whatever they hold (also NaN).
    Returns:
        The scalar loss (0 when nothing is valid) and detached scalars: ratio_mean, ratio_min, ratio_max,
        log_ratio_mean, log_ratio_std, clip_fraction (|rho - 1| outside the range), clip_active (the clipped branch was
        taken, so the gradient is zero), approx_kl.
    Raises:
        ValueError: shapes differ, clip not positive, or a valid entry has a non-finite advantage.
    Source: Flow-GRPO, policy loss of a denoising step.
    """
    check_same_shape(logp=logp, logp_old=logp_old, adv=adv)
    log_ratio = at_least_float32(logp) - at_least_float32(logp_old).detach()
    return _surrogate(log_ratio, adv, clip, valid, None)


def guard_log_ratio(
    logp: Tensor, logp_old: Tensor, mean: Tensor, mean_old: Tensor, std: float | Tensor, reduce: Reduce = "mean"
) -> Tensor:
    """GRPO-Guard's regulated log-ratio, std (logp - logp_old + b) with b = mean (mean - mean_old)^2 / (2 std^2).

    It equals mean(eps (mean - mean_old)) with eps the noise of the sampled step: the plain log-ratio's negative drift
    is gone, and its spread no longer grows as the noise shrinks.

    Args:
        logp, logp_old: Gaussian log-probs [B] of the same sample, reduced as `reduce` says (not CPS's).
        mean, mean_old: step means [B, ...] now and at sampling time; the old ones are constants.
        std: the step's standard deviation, a number, [B] or [B, 1, ..., 1], > 0.
        reduce: how the log-probs were reduced over dimensions.
    Returns:
        [B].
    Raises:
        ValueError: shapes differ, or std is zero.
    Source: GRPO-Guard (arXiv 2510.22319), as in RealGen V1 `flux_fast_guard` and V2.
    """
    check_same_shape(logp=logp, logp_old=logp_old)
    check_same_shape(mean=mean, mean_old=mean_old)
    mean, mean_old = at_least_float32(mean), at_least_float32(mean_old).detach()
    if tuple(logp.shape) != (mean.shape[0],):
        raise ValueError(f"logp must be [{mean.shape[0]}], one a sample, got {list(logp.shape)}")
    scale = per_sample(std, mean, "std").detach()
    if not bool((scale > 0).all()):
        raise ValueError("std must be > 0: a step without noise has no ratio")
    drift = over_sample_dims((mean - mean_old) ** 2 / (2 * scale**2), reduce)
    return scale.reshape(-1) * (at_least_float32(logp) - at_least_float32(logp_old).detach() + drift)


def guard_surrogate(
    logp: Tensor,
    logp_old: Tensor,
    mean: Tensor,
    mean_old: Tensor,
    std: float | Tensor,
    adv: Tensor,
    clip: Clip,
    dt: float | Tensor,
    valid: Tensor | None = None,
    reduce: Reduce = "mean",
) -> tuple[Tensor, dict[str, Tensor]]:
    """GRPO-Guard's objective: the clipped surrogate on `guard_log_ratio`, divided by |dt|.

    Args:
        logp, logp_old, adv: [B].
        mean, mean_old: [B, ...].
        std, dt: numbers or [B]; dt is the step in time, of either sign, not zero.
        clip, valid: as in `clipped_surrogate` (RealGen: 2e-6 to 4e-6 for FLUX, 1e-4 for Z-Image).
    Returns:
        As `clipped_surrogate`; the information is about the regulated ratio.
    Raises:
        ValueError: as `clipped_surrogate` and `guard_log_ratio`, or dt is zero.
    Source: GRPO-Guard (arXiv 2510.22319); RealGen (arXiv 2512.00473).
    """
    log_ratio = guard_log_ratio(logp, logp_old, mean, mean_old, std, reduce)
    check_same_shape(logp=logp, adv=adv)
    step = per_sample(dt, log_ratio, "dt").abs()
    if not bool((step > 0).all()):
        raise ValueError("dt must not be zero")
    return _surrogate(log_ratio, adv, clip, valid, 1 / step)


def _surrogate(
    log_ratio: Tensor, adv: Tensor, clip: Clip, valid: Tensor | None, weight: Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    low, high = clip if isinstance(clip, tuple) else (clip, clip)
    if not (low > 0 and high > 0):
        raise ValueError(f"clip must be > 0, got {clip}")
    keep = torch.ones_like(log_ratio, dtype=torch.bool) if valid is None else valid.to(log_ratio.device, torch.bool)
    check_same_shape(adv=adv, valid=keep)
    advantage = torch.where(keep, at_least_float32(adv).detach().to(log_ratio.device), 0.0)
    if not bool(torch.isfinite(advantage).all()):
        raise ValueError("a valid sample has a non-finite advantage; mark it invalid instead")
    log_ratio = torch.where(keep, log_ratio, 0.0)
    ratio = torch.exp(log_ratio)
    plain, clipped = -advantage * ratio, -advantage * ratio.clamp(1 - low, 1 + high)
    terms = torch.maximum(plain, clipped)
    if weight is not None:
        terms = terms * weight
    count = keep.sum().clamp(min=1)
    loss = torch.where(keep, terms, 0.0).sum() / count
    return loss, _ratio_info(log_ratio.detach(), ratio.detach(), (clipped > plain).detach(), keep, (low, high))


def _ratio_info(
    log_ratio: Tensor, ratio: Tensor, active: Tensor, keep: Tensor, clip: tuple[float, float]
) -> dict[str, Tensor]:
    if not bool(keep.any()):
        log_ratio, ratio, active = log_ratio.new_zeros(1), ratio.new_ones(1), active.new_zeros(1)
    else:
        log_ratio, ratio, active = log_ratio[keep], ratio[keep], active[keep]
    outside = (ratio < 1 - clip[0]) | (ratio > 1 + clip[1])
    return {
        "ratio_mean": ratio.mean(),
        "ratio_min": ratio.min(),
        "ratio_max": ratio.max(),
        "log_ratio_mean": log_ratio.mean(),
        "log_ratio_std": log_ratio.std(unbiased=False),
        "clip_fraction": outside.float().mean(),
        "clip_active": active.float().mean(),
        "approx_kl": 0.5 * (log_ratio**2).mean(),
    }
