"""DiffusionNFT: policy improvement on the forward process, without a stochastic sampler or a log-prob.

Source: DiffusionNFT (arXiv 2509.16117) and its reference implementation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from guerdon.objectives.flow_sde import predict_x0
from guerdon.objectives.kl import kl_velocity
from guerdon.objectives.shapes import at_least_float32, check_same_shape, over_sample_dims, per_sample


def nft_reward(adv: Tensor, clip: float = 5.0) -> Tensor:
    """The optimality probability r = clip(A, +-clip) / (2 clip) + 0.5, in [0, 1]; A = 0 gives 0.5. Any shape."""
    if clip <= 0:
        raise ValueError(f"clip must be > 0, got {clip}")
    return at_least_float32(adv).detach().clamp(-clip, clip) / (2 * clip) + 0.5


def nft_loss(
    v: Tensor,
    v_old: Tensor,
    v_ref: Tensor,
    x_t: Tensor,
    x0: Tensor,
    t: float | Tensor,
    r: Tensor,
    *,
    beta: float = 1.0,
    scale: float = 5.0,
    kl_weight: float = 1e-4,
    valid: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """scale * mean[ r l(v+) / b + (1 - r) l(v-) / b ] + kl_weight * mean (v - v_ref)^2.

    v+ = b v + (1 - b) v_old and v- = (1 + b) v_old - b v are the implicit positive and negative policies;
    l(u) = mean (x0_hat(u) - x_0)^2 / stop_gradient[ max(mean |x0_hat(u) - x_0|, 1e-5) ], the means over a sample's
    dimensions. At v = v_old and r = 0.5 the two halves cancel: no preference, no gradient (from the first term).

    Args:
        v, v_old, v_ref: velocities [B, ...] at (x_t, t) of the trained, the sampling and the initial policy; the last
            two are constants.
        x_t: `interpolate(x0, fresh noise, t)` [B, ...].
        x0: the sampler's clean samples [B, ...].
        t: time in (0, 1], a number or [B].
        r: `nft_reward` of the samples' advantages [B], in [0, 1].
        beta: b > 0 (1 or 0.1 in the paper's configurations).
        scale: the factor 5 of the reference implementation, which is its advantage clip.
        kl_weight: 1e-4 in the paper's configurations.
        valid: bool [B]; samples that are False take no part.
    Returns:
        The scalar loss and detached scalars: positive, negative (the two halves before scaling), kl.
    Raises:
        ValueError: shapes differ, r outside [0, 1], beta not positive.
    """
    check_same_shape(v=v, v_old=v_old, v_ref=v_ref, x_t=x_t, x0=x0)
    if beta <= 0:
        raise ValueError(f"beta must be > 0, got {beta}")
    if tuple(r.shape) != (v.shape[0],):
        raise ValueError(f"r must be [{v.shape[0]}], one a sample, got {list(r.shape)}")
    keep = (
        torch.ones(v.shape[0], dtype=torch.bool, device=v.device) if valid is None else valid.to(v.device, torch.bool)
    )
    if tuple(keep.shape) != (v.shape[0],):
        raise ValueError(f"valid must be [{v.shape[0]}], one a sample, got {list(keep.shape)}")
    probability = torch.where(keep, at_least_float32(r).detach().to(v.device), 0.5)
    if not bool(((probability >= 0) & (probability <= 1)).all()):
        raise ValueError("r must be in [0, 1]: pass advantages through nft_reward first")
    v, v_old = at_least_float32(v), at_least_float32(v_old).detach()
    x_t, x0 = at_least_float32(x_t).detach(), at_least_float32(x0).detach()

    positive = _self_normalised_error(beta * v + (1 - beta) * v_old, x_t, x0, t) / beta
    negative = _self_normalised_error((1 + beta) * v_old - beta * v, x_t, x0, t) / beta
    divergence = kl_velocity(v, v_ref)
    terms = scale * (probability * positive + (1 - probability) * negative) + kl_weight * divergence
    count = keep.sum().clamp(min=1)

    def average(per_sample_values: Tensor) -> Tensor:
        return torch.where(keep, per_sample_values, 0.0).sum() / count

    info = {"positive": average(positive), "negative": average(negative), "kl": average(divergence)}
    return average(terms), {name: value.detach() for name, value in info.items()}


def nft_old_policy_decay(step: int, schedule: int = 1) -> float:
    """How much of itself the sampling policy keeps after an epoch: v_old <- d v_old + (1 - d) v.

    Schedule 1: d = min(0.001 step, 0.5). Schedule 2: d = 0 until step 75, then min(0.0075 (step - 75), 0.999) (used for
    text rendering).

    Args:
        step: optimiser steps taken, >= 0.
        schedule: 1 or 2.
    Raises:
        ValueError: another schedule, or a negative step.
    """
    if step < 0:
        raise ValueError(f"step must be >= 0, got {step}")
    if schedule == 1:
        return min(0.001 * step, 0.5)
    if schedule == 2:
        return 0.0 if step < 75 else min(0.0075 * (step - 75), 0.999)
    raise ValueError(f"schedule must be 1 or 2, got {schedule}")


def _self_normalised_error(v: Tensor, x_t: Tensor, x0: Tensor, t: float | Tensor) -> Tensor:
    error = predict_x0(x_t, v, per_sample(t, x_t, "t")) - x0
    size = over_sample_dims(error.abs(), "mean").detach().clamp(min=1e-5)
    return over_sample_dims(error**2, "mean") / size
