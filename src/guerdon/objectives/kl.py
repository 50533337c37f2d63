"""Divergence of a denoising policy from its reference, one number a sample.

For two Gaussian steps with the same standard deviation std = g sqrt(|dt|) the exact divergence is ||mean - mean_ref||^2
/ (2 std^2). What Flow-GRPO's code uses divides by 2 g^2 instead, which is |dt| times the exact one; a KL weight tuned
for it does not carry over to another number of steps. All three forms are averaged over the sample's dimensions by
default, as the mean log-prob is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from guerdon.objectives.shapes import Reduce, at_least_float32, check_same_shape, over_sample_dims, per_sample


def kl_mean(mean: Tensor, mean_ref: Tensor, g: float | Tensor, reduce: Reduce = "mean") -> Tensor:
    """The KL term as published, ||mean - mean_ref||^2 / (2 g^2): |dt| times the exact divergence.

    Args:
        mean, mean_ref: [B, ...], same shape; the reference is a constant (detached).
        g: diffusion coefficient (std / sqrt(|dt|)), a number, [B] or [B, 1, ..., 1], > 0.
    Returns:
        [B].
    Raises:
        ValueError: shapes differ, or g is zero.
    Source: Flow-GRPO reference code; RealGen V1.
    """
    return _scaled_square(mean, mean_ref, g, "g", reduce)


def kl_exact(mean: Tensor, mean_ref: Tensor, std: float | Tensor, reduce: Reduce = "mean") -> Tensor:
    """KL(N(mean, std^2) || N(mean_ref, std^2)) = ||mean - mean_ref||^2 / (2 std^2).

    Args:
        mean, mean_ref: [B, ...], same shape; the reference is a constant (detached).
        std: the step's standard deviation, a number, [B] or [B, 1, ..., 1], > 0.
        reduce: "mean" divides by the number of dimensions (the form comparable to the mean log-prob), "sum" is the
            joint divergence.
    Returns:
        [B].
    Raises:
        ValueError: shapes differ, or std is zero.
    """
    return _scaled_square(mean, mean_ref, std, "std", reduce)


def kl_velocity(v: Tensor, v_ref: Tensor) -> Tensor:
    """Squared distance of velocities, mean (v - v_ref)^2: [B, ...] -> [B]. The reference is a constant.

    Source: GRPO-Guard (arXiv 2510.22319), RealGen V2; also DiffusionNFT's regulariser.
    """
    check_same_shape(v=v, v_ref=v_ref)
    return over_sample_dims((at_least_float32(v) - at_least_float32(v_ref).detach()) ** 2, "mean")


def velocity_kl_weight(t: float | Tensor, t_next: float | Tensor, g: float | Tensor) -> Tensor:
    """What the exact divergence of a marginal-preserving step puts on the velocities' distance.

    kl_exact = weight * kl_velocity with weight = (|dt| / 2) (g (1 - t) / (2 t) + 1 / g)^2.

    Args:
        t, t_next: 0 <= t_next < t <= 1, numbers or tensors that broadcast with g.
        g: diffusion coefficient > 0.
    Raises:
        ValueError: times out of order, or g is not positive.
    """
    time, time_next, scale = (at_least_float32(torch.as_tensor(value)) for value in (t, t_next, g))
    if not bool(((time_next >= 0) & (time_next < time) & (time <= 1)).all()):
        raise ValueError("times must satisfy 0 <= t_next < t <= 1")
    if not bool((scale > 0).all()):
        raise ValueError("g must be > 0: a deterministic step has no divergence")
    return (time - time_next) / 2 * (scale * (1 - time) / (2 * time) + 1 / scale) ** 2


def _scaled_square(mean: Tensor, mean_ref: Tensor, scale: float | Tensor, name: str, reduce: Reduce) -> Tensor:
    check_same_shape(mean=mean, mean_ref=mean_ref)
    mean, mean_ref = at_least_float32(mean), at_least_float32(mean_ref).detach()
    width = per_sample(scale, mean, name)
    if not bool((width > 0).all()):
        raise ValueError(f"{name} must be > 0: a step without noise has no divergence")
    return over_sample_dims((mean - mean_ref) ** 2 / (2 * width**2), reduce)
