"""What a rollout keeps: only the latents around the trained steps, against the plain loop's latents of all steps.

Bytes of the distinct tensors that are alive after a rollout of one embedded training step (96 images, 10 steps, a
window of 3), and for the full SDE. Both hold the images, the log-probabilities, and the step means that GRPO-Guard
needs; the plain loop of the published trainers stacks the latents (and means) of all denoising steps and repeats the
prompt embeddings for every image. Last line: {"name", "ratio", "parity"}: plain bytes over ours, window of 3; parity is
the largest difference between the trained latents that both keep.
"""

from __future__ import annotations

import json
import sys

import torch
from bench_training_epoch import PROMPTS, embedded_config, new_policy
from torch import Tensor

from guerdon.objectives.flow_sde import flow_sde_step, gaussian_log_prob, ode_step
from guerdon.policies.families import Conditions
from guerdon.policies.flow import FlowPolicy
from guerdon.policies.rollout import keyed_generator, rollout

PARITY = 1e-4


def size(tensors: list[Tensor]) -> int:
    """Bytes of the distinct storages behind some tensors: a view keeps the whole of what it looks at."""
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    return sum(storages.values())


@torch.no_grad()
def plain(
    policy: FlowPolicy, cond: Conditions, count: int, window: tuple[int, int], noise_level: float
) -> list[Tensor]:
    """Latents [N + 1, B, ...], means [N, B, ...] and log-probs [S, B] of all steps, embeddings, final images."""
    sigmas = policy.sigmas(count)
    noises = [keyed_generator(1, "noise", n) for n in range(len(cond))]
    x = policy.initial_noise(len(cond), [keyed_generator(1, "start", n) for n in range(len(cond))])
    latents, means, log_probs = [x], [], []
    for step in range(count):
        t, t_next = sigmas[step], sigmas[step + 1]
        v = policy.velocity(x, t, cond)
        if window[0] <= step < window[1]:
            mean, std = flow_sde_step(x, v, t, t_next, noise_level=noise_level, t_second=sigmas[1])
            x = mean + std * torch.stack([torch.randn(x.shape[1:], generator=one) for one in noises])
            log_probs.append(gaussian_log_prob(x, mean, std))
        else:
            mean = x = ode_step(x, v, t, t_next)
        latents.append(x)
        means.append(mean)
    embeds, pooled = cond.rows()
    assert pooled is not None
    return [torch.stack(latents), torch.stack(means), torch.stack(log_probs), embeds, pooled, policy.decode(x)]


def main() -> None:
    config = embedded_config(kl="velocity", kl_weight=1e-4)
    policy = new_policy(config)
    images = config.group_size * config.prompts_per_step
    cond = policy.encode([PROMPTS[number // config.group_size] for number in range(images)])
    found: dict[str, tuple[float, float]] = {}
    for name, window in (("window of 3", (2, 5)), ("full SDE", (0, config.num_steps))):
        kept = rollout(
            policy, cond, num_steps=config.num_steps, noise_level=config.noise_level, window=window,
            initial=policy.initial_noise(images, [keyed_generator(1, "start", n) for n in range(images)]),
            generator=[keyed_generator(1, "noise", n) for n in range(images)],
        )  # fmt: skip
        pooled = [] if kept.cond.pooled is None else [kept.cond.pooled]
        own = size(
            [
                kept.chain,
                kept.means,
                kept.log_probs,
                kept.final,
                kept.images,
                kept.cond.embeds,
                *pooled,
                kept.cond.index,
            ]
        )
        theirs = plain(policy, cond, config.num_steps, window, config.noise_level)
        difference = float((theirs[0][window[0] : window[1] + 1] - kept.chain).abs().max())
        found[name] = (size(theirs) / own, difference)
        print(f"{name}: rollout keeps {own / 2**20:.1f} MiB, the plain loop {size(theirs) / 2**20:.1f} MiB")
    ratio, _ = found["window of 3"]
    worst = max(difference for _, difference in found.values())
    print(json.dumps({"name": "rollout_memory", "ratio": round(ratio, 3), "parity": worst}))
    sys.exit(0 if worst < PARITY else 1)


if __name__ == "__main__":
    main()
