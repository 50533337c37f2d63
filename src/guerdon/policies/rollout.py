"""Sampling a flow policy as a Markov decision process: stochastic steps whose log-probabilities can be trained.

Sources: Flow-GRPO (arXiv 2505.05470), its Fast variant with shared prefixes, RealGen (arXiv 2512.00473) section 6 of
stage 2, CPS (arXiv 2509.05952).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.core.errors import GuerdonError
from guerdon.objectives.flow_sde import Kind, cps_log_prob, flow_sde_step, gaussian_log_prob, ode_step
from guerdon.policies.families import Conditions
from guerdon.policies.flow import FlowPolicy, gaussian


@dataclass(frozen=True)
class Trajectory:
    """What a rollout of B images keeps of its S trained steps; nothing of any other step.

    chain [S + 1, B, C, H, W] float32: the states around the trained steps, which follow one another.
    means [S, B, C, H, W]: the step means under the sampling policy. log_probs [S, B]. step_index: long [S].
    sigmas [N + 1]: the whole time grid. final [B, C, H, W]: the last latents. images [B, 3, H, W] in [0, 1].
    cond: the B images' conditions (``branches`` times the given ones, branches of one prefix side by side).
    """

    chain: Tensor
    means: Tensor
    log_probs: Tensor
    step_index: Tensor
    sigmas: Tensor
    final: Tensor
    images: Tensor
    cond: Conditions

    @property
    def latents(self) -> Tensor:
        """States before the trained steps, [S, B, C, H, W]; a view."""
        return self.chain[:-1]

    @property
    def next_latents(self) -> Tensor:
        """States after the trained steps, [S, B, C, H, W]; a view."""
        return self.chain[1:]


def keyed_generator(*key: int | str) -> torch.Generator:
    """Return a CPU generator whose stream depends on ``key`` only, such as (seed, step, "noise", sample)."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def log_prob(sample: Tensor, mean: Tensor, std: Tensor, kind: Kind) -> Tensor:
    """Return the log-probability [B] that goes with the sampler ``kind``, averaged over dimensions."""
    return cps_log_prob(sample, mean) if kind == "cps" else gaussian_log_prob(sample, mean, std)


def trained_steps(num_steps: int, window: tuple[int, int] | None) -> tuple[range, range]:
    """Return (stochastic steps, trained steps) for a window [start, stop), or None for the full SDE.

    The full SDE adds noise at every step and trains all but the last (Flow-GRPO trains the first int(0.99 N)). Use
    the window (0, N - 1) to leave the last step without noise. Raises GuerdonError for a window outside 0..N.
    """
    if window is None:
        return range(num_steps), range(num_steps - 1)
    start, stop = window
    if not 0 <= start <= stop <= num_steps:
        raise GuerdonError(f"window ({start}, {stop}) does not lie in the sampler's steps 0..{num_steps}")
    return range(start, stop), range(start, stop)


@torch.no_grad()
def rollout(
    policy: FlowPolicy,
    cond: Conditions,
    *,
    num_steps: int,
    noise_level: float,
    kind: Kind = "flow",
    window: tuple[int, int] | None = None,
    branches: int = 1,
    same_noise: bool = False,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    initial: Tensor | None = None,
) -> Trajectory:
    """Sample ``len(cond) * branches`` images; stochastic inside ``window``, Euler steps of the ODE elsewhere.

    ``cond`` has one row a prefix: up to the window's start each row is sampled once, then repeated ``branches`` times
    (Flow-GRPO-Fast). ``same_noise`` gives all rows of one prompt the same initial noise (DanceGRPO). ``generator`` is
    one generator, or one for each image; then image i depends on its own generator (and, for its initial noise, on its
    prefix's first branch's) whatever shares the batch. ``initial`` [len(cond), C, H, W] overrides the initial noise.
    All step arithmetic is float32. The last step of "cps" has no noise and hence no log-prob: it cannot be trained.

    Raises GuerdonError for a window outside the grid, a window without noise, or a wrong number of generators.
    """
    noisy, kept = trained_steps(num_steps, window)
    if kept and noise_level <= 0:
        raise GuerdonError(
            "noise_level 0 makes every step deterministic: there is no log-prob to train; use more noise"
        )
    if kind == "cps" and kept and kept[-1] == num_steps - 1:
        raise GuerdonError(f"the last step of kind 'cps' has no noise: end the window at {num_steps - 1} or before")
    sigmas = policy.sigmas(num_steps)
    grid = sigmas.to(policy.device)
    x = _initial(policy, cond, branches, same_noise, generator) if initial is None else initial.float()
    branch_at = noisy.start if window is not None else 0
    chain: Tensor | None = None
    means: Tensor | None = None
    log_probs: list[Tensor] = []
    for step in range(num_steps):
        if step == branch_at:
            cond, x = _branch(cond, x, branches)
        t, t_next = grid[step], grid[step + 1]
        v = policy.velocity(x, t, cond)
        if step not in noisy:
            x = ode_step(x, v, t, t_next)
            continue
        mean, std = flow_sde_step(x, v, t, t_next, noise_level=noise_level, t_second=grid[1], kind=kind)
        following = mean + std * gaussian(tuple(x.shape), generator, x.device)
        if step in kept:
            if chain is None or means is None:
                chain, means = x.new_empty(len(kept) + 1, *x.shape), x.new_empty(len(kept), *x.shape)
                chain[0] = x
            chain[step - kept.start + 1] = following
            means[step - kept.start] = mean
            log_probs.append(log_prob(following, mean, std, kind))
        x = following
    if branch_at >= num_steps:
        cond, x = _branch(cond, x, branches)
    return Trajectory(
        chain=x.new_empty(1, *x.shape) if chain is None else chain,
        means=x.new_empty(0, *x.shape) if means is None else means,
        log_probs=torch.stack(log_probs) if log_probs else x.new_empty(0, len(x)),
        step_index=torch.tensor(list(kept), dtype=torch.long),
        sigmas=sigmas,
        final=x,
        images=policy.decode(x),
        cond=cond,
    )


def _branch(cond: Conditions, x: Tensor, branches: int) -> tuple[Conditions, Tensor]:
    if branches == 1:
        return cond, x
    rows = torch.arange(len(x), device=x.device).repeat_interleave(branches)
    return cond[rows], x[rows]


def _initial(
    policy: FlowPolicy,
    cond: Conditions,
    branches: int,
    same_noise: bool,
    generator: torch.Generator | Sequence[torch.Generator] | None,
) -> Tensor:
    if generator is not None and not isinstance(generator, torch.Generator):
        if len(generator) != len(cond) * branches:
            raise GuerdonError(f"{len(cond) * branches} images need as many generators, got {len(generator)}")
        generator = list(generator)[::branches]
    noise = policy.initial_noise(len(cond), generator)
    if not same_noise:
        return noise
    first = {row: place for place, row in reversed(list(enumerate(cond.index.tolist())))}
    return noise[torch.tensor([first[row] for row in cond.index.tolist()], device=noise.device)]
