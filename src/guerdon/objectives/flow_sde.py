"""Stochastic steps of a flow-matching sampler and their log-probabilities.

Time t is the scheduler's sigma in [0, 1]: x_t = (1 - t) x_0 + t x_1 with x_1 ~ N(0, I), the model predicts v = x_1 -
x_0, and sampling goes from t = 1 down to 0, so dt = t_next - t < 0. Every mean below is written as the Euler step plus
a correction that vanishes with the noise level; with noise level 0 each sampler is therefore the Euler step to the last
bit.

Sources: Flow-GRPO (arXiv 2505.05470), DanceGRPO (arXiv 2505.07818), coefficients-preserving sampling, CPS (arXiv
2509.05952).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from guerdon.objectives.shapes import Reduce, at_least_float32, check_same_shape, over_sample_dims, per_sample

Kind = Literal["flow", "dance", "cps"]


def interpolate(x0: Tensor, noise: Tensor, t: float | Tensor) -> Tensor:
    """The forward process x_t = (1 - t) x_0 + t x_1.

    Args:
        x0: clean samples [B, ...].
        noise: x_1, standard normal, same shape.
        t: time in [0, 1], a number or [B].
    """
    check_same_shape(x0=x0, noise=noise)
    x0, noise = at_least_float32(x0), at_least_float32(noise)
    time = per_sample(t, x0, "t")
    return (1 - time) * x0 + time * noise


def predict_x0(x: Tensor, v: Tensor, t: float | Tensor) -> Tensor:
    """The clean sample implied by a velocity, x_0 = x - t v. Shapes: x, v [B, ...]; t a number or [B]."""
    check_same_shape(x=x, v=v)
    x, v = at_least_float32(x), at_least_float32(v)
    return x - per_sample(t, x, "t") * v


def predict_x1(x: Tensor, v: Tensor, t: float | Tensor) -> Tensor:
    """The noise implied by a velocity, x_1 = x + (1 - t) v. Shapes: x, v [B, ...]; t a number or [B]."""
    check_same_shape(x=x, v=v)
    x, v = at_least_float32(x), at_least_float32(v)
    return x + (1 - per_sample(t, x, "t")) * v


def ode_step(x: Tensor, v: Tensor, t: float | Tensor, t_next: float | Tensor) -> Tensor:
    """One Euler step, x + v (t_next - t). Shapes: x, v [B, ...]; times numbers or [B], in either direction."""
    check_same_shape(x=x, v=v)
    x, v = at_least_float32(x), at_least_float32(v)
    return x + v * (per_sample(t_next, x, "t_next") - per_sample(t, x, "t"))


def flow_noise_scale(t: Tensor, noise_level: float, t_second: Tensor | None = None) -> Tensor:
    """Flow-GRPO's diffusion coefficient g = a sqrt(t / (1 - t)).

    At t = 1 the denominator would be zero; there, and only there, it uses the second point of the grid instead.

    Args:
        t: times in (0, 1], any shape.
        noise_level: a >= 0 (0.7 in Flow-GRPO, 0.9 in RealGen).
        t_second: the grid's second point in [0, 1), needed where t = 1; broadcasts against t.
    Raises:
        ValueError: t = 1 without t_second, or t_second not below 1.
    Source: Flow-GRPO, section on the ODE-to-SDE conversion; the rule for t = 1 is from its reference code.
    """
    if noise_level < 0:
        raise ValueError(f"noise_level must be >= 0, got {noise_level}")
    time = at_least_float32(t)
    denominator_time = time
    first = time >= 1
    if bool(first.any()):
        if t_second is None:
            raise ValueError("t = 1 needs t_second, the second point of the time grid")
        second = at_least_float32(t_second).to(time.device).expand_as(time)
        if bool((second[first] >= 1).any()) or bool((second[first] < 0).any()):
            raise ValueError("t_second must be in [0, 1)")
        denominator_time = torch.where(first, second, time)
    return noise_level * torch.sqrt(time / (1 - denominator_time))


def marginal_preserving_step(
    x: Tensor, v: Tensor, t: float | Tensor, t_next: float | Tensor, g: float | Tensor
) -> tuple[Tensor, Tensor]:
    """One Euler-Maruyama step of the SDE that keeps the flow's marginals, for any diffusion coefficient g.

    mean = x + [v - (g^2 / 2) score] dt with score = -(x + (1 - t) v) / t, and std = g sqrt(-dt).

    Args:
        x, v: state and velocity [B, ...].
        t, t_next: numbers or [B], 0 <= t_next < t <= 1.
        g: a number or [B], >= 0. A constant gives DanceGRPO, a sqrt(t / (1 - t)) gives Flow-GRPO.
    Returns:
        mean [B, ...] and std [B, 1, ..., 1], at least float32.
    Raises:
        ValueError: shapes differ, times out of order, negative g.
    Source: the common form of Flow-GRPO and DanceGRPO.
    """
    x, v, time, time_next = _check_step(x, v, t, t_next)
    scale = per_sample(g, x, "g")
    if bool((scale < 0).any()):
        raise ValueError("g must be >= 0")
    dt = time_next - time
    correction = (scale**2 * dt / (2 * time)) * (x + (1 - time) * v)
    return x + v * dt + correction, scale * torch.sqrt(-dt)


def flow_sde_step(
    x: Tensor,
    v: Tensor,
    t: float | Tensor,
    t_next: float | Tensor,
    *,
    noise_level: float = 0.7,
    t_second: float | Tensor | None = None,
    kind: Kind = "flow",
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of one stochastic denoising step, x' = mean + std * eps.

    kind "flow": g = a sqrt(t / (1 - t)) in `marginal_preserving_step`. kind "dance": constant g = a. kind "cps": std =
    t_next sin(a pi / 2), mean = (1 - t_next) x_0 + sqrt(t_next^2 - std^2) x_1 with the predicted x_0 and x_1; CPS does
    not keep the marginals (it contracts them).

    Args:
        x, v: state and velocity [B, ...]; computed in float32 even when given in half precision.
        t, t_next: numbers or [B], 0 <= t_next < t <= 1.
        noise_level: a >= 0; in [0, 1] for "cps". With 0 the mean is exactly the Euler step and std is 0, so that no
            log-prob exists.
        t_second: the grid's second point, used in g's denominator at t = 1 only ("flow"). Default: t_next, which is the
            second point whenever t = 1 is the grid's start.
    Returns:
        mean [B, ...] and std [B, 1, ..., 1], at least float32. Keep the sampled x' in float32 too: rounding it changes
        its log-prob.
    Raises:
        ValueError: shapes differ, times out of order, noise level out of range, unknown kind.
    Source: Flow-GRPO and its `sde_type="cps"` (arXiv 2509.05952); DanceGRPO for the constant coefficient.
    """
    if noise_level < 0:
        raise ValueError(f"noise_level must be >= 0, got {noise_level}")
    if kind == "dance":
        return marginal_preserving_step(x, v, t, t_next, noise_level)
    x, v, time, time_next = _check_step(x, v, t, t_next)
    if kind == "flow":
        second = time_next if t_second is None else per_sample(t_second, x, "t_second")
        return marginal_preserving_step(x, v, time, time_next, flow_noise_scale(time, noise_level, second))
    if kind == "cps":
        if noise_level > 1:
            raise ValueError(f"noise_level must be in [0, 1] for kind 'cps', got {noise_level}")
        std = time_next * math.sin(noise_level * math.pi / 2)
        # sqrt(t'^2 - std^2) = t' cos(a pi / 2), which is Euler's coefficient t' less 2 t' sin^2(a pi / 4).
        shrink = -2 * math.sin(noise_level * math.pi / 4) ** 2 * time_next
        return x + v * (time_next - time) + shrink * (x + (1 - time) * v), std
    raise ValueError(f"kind must be 'flow', 'dance' or 'cps', got {kind!r}")


def gaussian_log_prob(sample: Tensor, mean: Tensor, std: float | Tensor, reduce: Reduce = "mean") -> Tensor:
    """Log-density of a sample under N(mean, std^2), averaged or summed over its dimensions: [B, ...] -> [B].

    -(x' - mean)^2 / (2 std^2) - ln std - 0.5 ln 2 pi. The sample is data: no gradient flows into it.

    Args:
        sample, mean: [B, ...], same shape.
        std: a number, [B] or [B, 1, ..., 1], > 0.
        reduce: "mean" is what Flow-GRPO, DDPO and DanceGRPO publish: with D dimensions the ratio is the D-th root of
            the true one, hence clip ranges near 1e-4. "sum" is the true log-density.
    Raises:
        ValueError: shapes differ, or std is zero (a deterministic step has no log-prob; do not train it).
    """
    check_same_shape(sample=sample, mean=mean)
    sample, mean = at_least_float32(sample).detach(), at_least_float32(mean)
    scale = per_sample(std, mean, "std")
    if not bool((scale > 0).all()):
        raise ValueError("std must be > 0: a step without noise is deterministic and has no log-prob")
    log_density = -((sample - mean) ** 2) / (2 * scale**2) - torch.log(scale) - 0.5 * math.log(2 * math.pi)
    return over_sample_dims(log_density, reduce)


def cps_log_prob(sample: Tensor, mean: Tensor) -> Tensor:
    """The log-prob that CPS trains on, -mean (x' - mean)^2: [B, ...] -> [B]. No scale and no constants.

    It is 2 std^2 times the Gaussian's quadratic term, so steps with little noise weigh less than under
    `gaussian_log_prob`. The sample is data: no gradient flows into it. Source: arXiv 2509.05952, as used by Flow-GRPO
    and Adv-GRPO.
    """
    check_same_shape(sample=sample, mean=mean)
    sample, mean = at_least_float32(sample).detach(), at_least_float32(mean)
    return -over_sample_dims((sample - mean) ** 2, "mean")


def _check_step(
    x: Tensor, v: Tensor, t: float | Tensor, t_next: float | Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    check_same_shape(x=x, v=v)
    x, v = at_least_float32(x), at_least_float32(v)
    time, time_next = per_sample(t, x, "t"), per_sample(t_next, x, "t_next")
    if not bool(((time_next >= 0) & (time_next < time) & (time <= 1)).all()):
        raise ValueError("times must satisfy 0 <= t_next < t <= 1: a stochastic step goes from more noise to less")
    return x, v, time, time_next
