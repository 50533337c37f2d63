"""The losses of a diffusion policy update: all trained steps of a micro-batch in one forward pass.

The published loops run one forward-backward pass a denoising step; stacking the S steps of m images into one batch of
S * m rows is the same sum with S times fewer passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.objectives.diffusion_nft import nft_loss, nft_reward
from guerdon.objectives.flow_sde import flow_sde_step, interpolate
from guerdon.objectives.kl import kl_exact, kl_mean, kl_velocity
from guerdon.objectives.surrogate import clipped_surrogate, guard_log_ratio
from guerdon.policies.families import Conditions
from guerdon.policies.flow import FlowPolicy
from guerdon.policies.rollout import Trajectory, keyed_generator, log_prob
from guerdon.trainers.diffusion_config import DiffusionConfig


@dataclass
class Samples:
    """This process's n samples of one training step.

    chain [S + 1, n, C, H, W], means [S, n, C, H, W], log_probs [S, n]: the trained steps. final [n, C, H, W].
    numbers: their places among the samples of all processes, long [n].
    """

    chain: Tensor
    means: Tensor
    log_probs: Tensor
    final: Tensor
    cond: Conditions
    step_index: Tensor
    sigmas: Tensor
    numbers: Tensor

    @classmethod
    def of(cls, paths: Sequence[Trajectory], cond: Conditions, numbers: Tensor) -> Samples:
        """Put rollouts of one window together; ``cond`` are the conditions of all their images."""
        return cls(
            chain=torch.cat([path.chain for path in paths], dim=1),
            means=torch.cat([path.means for path in paths], dim=1),
            log_probs=torch.cat([path.log_probs for path in paths], dim=1),
            final=torch.cat([path.final for path in paths]),
            cond=cond,
            step_index=paths[0].step_index,
            sigmas=paths[0].sigmas,
            numbers=numbers,
        )


@dataclass
class Terms:
    """A micro-batch's loss, summed over its counted images (each a mean over its steps), and what to log of it.

    sums: name -> sum over counted images. ratio_deviation: largest |exp(logp - logp_old) - 1|.
    """

    loss: Tensor
    sums: dict[str, Tensor]
    ratio_deviation: Tensor


@dataclass
class _Steps:
    v: Tensor
    mean: Tensor
    std: Tensor
    log_probs: Tensor
    x: Tensor
    t: Tensor
    t_next: Tensor
    cond: Conditions


def _evaluate(policy: FlowPolicy, config: DiffusionConfig, samples: Samples, rows: Tensor) -> _Steps:
    """Evaluate the policy at every trained step of the images ``rows``, [S * m] rows in one pass, step by step."""
    device, count = samples.chain.device, len(rows)
    grid = samples.sigmas.to(device)
    index = samples.step_index.to(device)
    t, t_next = grid[index].repeat_interleave(count), grid[index + 1].repeat_interleave(count)
    x = samples.chain[:-1, rows].flatten(0, 1)
    cond = samples.cond[rows.repeat(len(index))]
    v = policy.velocity(x, t, cond)
    mean, std = flow_sde_step(x, v, t, t_next, noise_level=config.noise_level, t_second=grid[1], kind=config.kind)
    logp = log_prob(samples.chain[1:, rows].flatten(0, 1), mean, std, config.kind)
    return _Steps(v, mean, std, logp, x, t, t_next, cond)


def policy_terms(
    policy: FlowPolicy,
    config: DiffusionConfig,
    samples: Samples,
    rows: Tensor,
    advantages: Tensor,
    counted: Tensor,
) -> Terms:
    """The clipped surrogate, plain or GRPO-Guard's, plus the chosen KL, of the images ``rows``.

    advantages [m]; counted bool [m]: False rows only fill the batch up. Sources: Flow-GRPO (arXiv 2505.05470),
    GRPO-Guard (arXiv 2510.22319), RealGen (arXiv 2512.00473).
    """
    steps = _evaluate(policy, config, samples, rows)
    trained, count = len(samples.step_index), len(rows)
    old = samples.log_probs[:, rows].flatten()
    if config.algorithm == "guard":
        mean_old = samples.means[:, rows].flatten(0, 1)
        log_ratio = guard_log_ratio(steps.log_probs, old, steps.mean, mean_old, steps.std)
    else:
        log_ratio = steps.log_probs - old
    by_dt = config.algorithm == "guard" if config.divide_by_dt is None else config.divide_by_dt
    scale = 1 / (steps.t - steps.t_next).abs() if by_dt else torch.ones_like(steps.t)
    advantages = advantages.clamp(-config.adv_clip, config.adv_clip)
    number = counted.sum()
    sums: dict[str, Tensor] = {}
    policy_loss = log_ratio.new_zeros(())
    for part, weight in zip(log_ratio.split(count), scale.split(count), strict=True):
        loss, info = clipped_surrogate(part, torch.zeros_like(part), advantages, config.clip_range, counted)
        policy_loss = policy_loss + weight[0] * loss * number / trained
        for name in ("ratio_mean", "clip_fraction", "clip_active", "approx_kl"):
            sums[name] = sums.get(name, 0.0) + info[name] * number / trained
    loss = policy_loss
    sums["policy_loss"] = policy_loss.detach()
    if config.kl_used:
        divergence = (
            _divergence(policy, config, samples, steps).unflatten(0, (trained, count)).mean(0) * counted
        ).sum()
        loss = loss + config.kl_weight * divergence
        sums["kl"] = divergence.detach()
    sums["loss"] = loss.detach()
    away = ((steps.log_probs - old).detach().exp() - 1).abs().unflatten(0, (trained, count))[:, counted]
    return Terms(loss, sums, away.max() if away.numel() else away.new_zeros(()))


def _divergence(policy: FlowPolicy, config: DiffusionConfig, samples: Samples, steps: _Steps) -> Tensor:
    with policy.reference():
        v_ref = policy.velocity(steps.x, steps.t, steps.cond)
    if config.kl == "velocity":
        return kl_velocity(steps.v, v_ref)
    second = samples.sigmas[1].to(steps.x.device)
    mean_ref, _ = flow_sde_step(
        steps.x, v_ref, steps.t, steps.t_next, noise_level=config.noise_level, t_second=second, kind=config.kind
    )
    if config.kl == "mu_exact":
        return kl_exact(steps.mean, mean_ref, steps.std)
    g = steps.std.flatten() / torch.sqrt(steps.t - steps.t_next)
    return kl_mean(steps.mean, mean_ref, g)


@torch.no_grad()
def recompute_old(policy: FlowPolicy, config: DiffusionConfig, samples: Samples, rows: Tensor, counted: Tensor) -> None:
    """Replace the old means and log-probs of ``rows`` by those of a pass batched exactly like the update's."""
    steps = _evaluate(policy, config, samples, rows)
    shape = (len(samples.step_index), len(rows))
    samples.means[:, rows[counted]] = steps.mean.unflatten(0, shape)[:, counted]
    samples.log_probs[:, rows[counted]] = steps.log_probs.unflatten(0, shape)[:, counted]


def nft_terms(
    policy: FlowPolicy,
    config: DiffusionConfig,
    samples: Samples,
    rows: Tensor,
    advantages: Tensor,
    counted: Tensor,
    old: Sequence[Tensor],
    key: tuple[int | str, ...],
) -> Terms:
    """DiffusionNFT's loss of the images ``rows`` at ``nft_timesteps`` of the sampler's times, in one pass.

    ``old``: the sampling policy's parameters. Each image's times (a random choice without repeats) and noise are keyed
    by ``key`` and its number. Source: DiffusionNFT (arXiv 2509.16117).
    """
    device, grid = samples.final.device, samples.sigmas[:-1]
    chosen = min(config.nft_timesteps or len(grid), len(grid))
    times, noises = [], []
    for number in samples.numbers[rows.cpu()].tolist():
        generator = keyed_generator(*key, number)
        times.append(grid[torch.randperm(len(grid), generator=generator)[:chosen]])
        noises.append(torch.randn(chosen, *samples.final.shape[1:], generator=generator))
    t, noise = torch.cat(times).to(device), torch.cat(noises).to(device)
    x0 = samples.final[rows].repeat_interleave(chosen, dim=0)
    cond = samples.cond[rows.repeat_interleave(chosen)]
    x_t = interpolate(x0, noise, t)
    with torch.no_grad(), policy.using(old):
        v_old = policy.velocity(x_t, t, cond)
    with policy.reference() if config.kl_used else nullcontext():
        v_ref = policy.velocity(x_t, t, cond) if config.kl_used else v_old
    v = policy.velocity(x_t, t, cond)
    mean, info = nft_loss(
        v, v_old, v_ref, x_t, x0, t, nft_reward(advantages, config.adv_clip).repeat_interleave(chosen),
        beta=config.nft_beta, kl_weight=config.kl_weight if config.kl_used else 0.0,
        valid=counted.repeat_interleave(chosen),
    )  # fmt: skip
    number = counted.sum()
    sums = {"loss": mean.detach() * number}
    sums |= {name: value * number for name, value in info.items() if name != "kl" or config.kl_used}
    return Terms(mean * number, sums, mean.new_zeros(()))
