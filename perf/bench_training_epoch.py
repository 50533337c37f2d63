"""One training epoch (sample, score, optimise) of DiffusionTrainer against a plain loop, at the embedded size.

The plain loop does what the published trainers do: prompts are encoded again for every batch, the latents of all
denoising steps are kept, every trained step of every micro-batch has its own forward and backward pass, the reference
policy is always evaluated, and a pass holds three images (RealGen V1). A third side is the same loop with our batch
sizes, which tells how much of the ratio is the batch size alone. All sides draw the same noise, use the same rewards
and take the same optimiser steps, and their gradients are compared.

The sides take turns. Last line: {"name", "ratio", "parity", ...}: ratio in images a second, the median over rounds;
parity the largest difference of a gradient relative to the largest gradient; beside them the ratio by processor time,
which other programs on the machine disturb less, and both ratios against the loop with our batch sizes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from guerdon.core.photographs import SUBJECTS
from guerdon.models.detectors.small import make_detector
from guerdon.objectives.flow_sde import flow_sde_step, gaussian_log_prob, ode_step
from guerdon.policies.embedded import new_base, train_tokenizer
from guerdon.policies.flow import FlowPolicy
from guerdon.policies.rollout import keyed_generator
from guerdon.rewards.bank import RewardBank
from guerdon.rewards.image.detector import DetectorReward
from guerdon.trainers.diffusion import DiffusionTrainer
from guerdon.trainers.diffusion_config import DiffusionConfig, WindowConfig

PROMPTS = [f"a photo of {subject.name}" for subject in SUBJECTS]
PARITY = 1e-4
# RealGen V1: every rank samples and trains three images at a time.
PUBLISHED_BATCH = 3
Epoch = Callable[[], list[list[Tensor]]]


def embedded_config(**changes: Any) -> DiffusionConfig:
    """Stage 2 of the embedded RealGen run."""
    return DiffusionConfig(
        algorithm="grpo", steps=1, num_steps=10, eval_steps=10, guidance=1.0, group_size=8, prompts_per_step=12,
        sample_batch=96, micro_batch=16, noise_level=0.7, window=WindowConfig(size=3, lo=0, hi=8), branches=1,
        learning_rate=3e-4, clip_range=1e-3, updates_per_step=2, lora_rank=16, lora_alpha=32, ema_decay=0.5,
        ema_every=1, seed=11, **changes,
    )  # fmt: skip


@cache
def tokenizer() -> CLIPTokenizer:
    """One for both sides: training one twice does not give the same."""
    return train_tokenizer(PROMPTS)


def new_policy(config: DiffusionConfig) -> FlowPolicy:
    """The embedded base with random weights (speed does not depend on them) and an adapter moved away from zero."""
    torch.manual_seed(0)
    policy = FlowPolicy(new_base(tokenizer()), guidance=config.guidance, max_sequence_length=1)
    policy.add_lora(config.lora_rank, config.lora_alpha, seed=config.seed)
    generator = torch.Generator().manual_seed(1)
    for parameter in policy.trainable_parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return policy


def new_bank() -> RewardBank:
    """Three small detectors, as in the embedded run."""
    return RewardBank(
        {name: (DetectorReward(make_detector(name, seed=3), name=name), 1.0) for name in ("cnn", "patch", "gradient")}
    )


def copies(parameters: list[torch.nn.Parameter]) -> list[Tensor]:
    """Copies of the gradients."""
    return [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]


def ours(config: DiffusionConfig) -> Epoch:
    """An epoch of DiffusionTrainer."""
    bank = new_bank()
    policy = new_policy(config)

    def scorer(prompts: list[str], images: Tensor, step: int, **columns: Any) -> Any:
        return bank.score(prompts, images, **columns)

    trainer = DiffusionTrainer(policy, scorer, PROMPTS, config)
    found: list[list[Tensor]] = []
    step = trainer._optimise

    def optimise() -> float:
        found.append(copies(trainer.parameters))
        return step()

    trainer._optimise = optimise  # type: ignore[method-assign]

    def epoch() -> list[list[Tensor]]:
        found.clear()
        trainer.train_step()
        return list(found)

    return epoch


class PlainLoop:
    """Flow-GRPO as its published trainers write it, for one process."""

    def __init__(self, config: DiffusionConfig) -> None:
        self.config, self.bank = config, new_bank()
        self.policy = new_policy(config)
        self.pipeline, self.transformer = self.policy.pipeline, self.policy.transformer
        self.parameters = self.policy.trainable_parameters()
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, betas=config.betas, eps=config.eps,
            weight_decay=config.weight_decay,
        )  # fmt: skip
        self.window = config.make_window()
        self.step = 0

    def encode(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            embeds, _, pooled, _ = self.pipeline.encode_prompt(
                prompt=prompts, prompt_2=None, prompt_3=None, do_classifier_free_guidance=False, max_sequence_length=1
            )
        return embeds, pooled

    def velocity(self, x: Tensor, t: Tensor, embeds: Tensor, pooled: Tensor) -> Tensor:
        return self.transformer(
            hidden_states=x, timestep=t.expand(len(x)) * 1000, encoder_hidden_states=embeds, pooled_projections=pooled,
            return_dict=False,
        )[0]  # fmt: skip

    @torch.no_grad()
    def sample(self, prompts: list[str], numbers: range, window: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """All latents [N + 1, B, ...], the log-probs [S, B] of the window's steps, and the images."""
        config, sigmas = self.config, self.policy.sigmas(self.config.num_steps)
        embeds, pooled = self.encode(prompts)
        starts = [keyed_generator(config.seed, self.step, "start", "prefix", n) for n in numbers]
        noises = [keyed_generator(config.seed, self.step, "noise", n) for n in numbers]
        x = torch.stack([torch.randn(self.policy.latent_shape, generator=one) for one in starts])
        latents, log_probs = [x], []
        for place in range(config.num_steps):
            t, t_next = sigmas[place], sigmas[place + 1]
            v = self.velocity(x, t, embeds, pooled)
            if window[0] <= place < window[1]:
                mean, std = flow_sde_step(x, v, t, t_next, noise_level=config.noise_level, t_second=sigmas[1])
                x = mean + std * torch.stack([torch.randn(x.shape[1:], generator=one) for one in noises])
                log_probs.append(gaussian_log_prob(x, mean, std))
            else:
                x = ode_step(x, v, t, t_next)
            latents.append(x)
        return torch.stack(latents), torch.stack(log_probs), self.policy.decode(x)

    def epoch(self) -> list[list[Tensor]]:
        """Sample, score and update once; returns the gradients of each optimiser step."""
        config, sigmas = self.config, self.policy.sigmas(self.config.num_steps)
        window = self.window.at(self.step)
        assert window is not None
        slots = torch.randperm(len(PROMPTS), generator=keyed_generator(config.seed, self.step, "prompts")).tolist()
        prompts = [PROMPTS[slots[n // config.group_size]] for n in range(config.group_size * config.prompts_per_step)]
        drawn = [
            self.sample(prompts[first : first + config.sample_batch],
                        range(first, min(first + config.sample_batch, len(prompts))), window)
            for first in range(0, len(prompts), config.sample_batch)
        ]  # fmt: skip
        latents = torch.cat([one[0] for one in drawn], 1)
        log_probs = torch.cat([one[1] for one in drawn], 1)
        scores = self.bank.score(prompts, torch.cat([one[2] for one in drawn]))
        groups = torch.arange(config.prompts_per_step).repeat_interleave(config.group_size)
        advantages = scores.advantages(groups).float().clamp(-config.adv_clip, config.adv_clip)
        order = torch.randperm(len(prompts), generator=keyed_generator(config.seed, self.step, "order"))
        gradients = []
        for part in order.tensor_split(config.updates_per_step):
            for rows in part.split(config.micro_batch):
                embeds, pooled = self.encode([prompts[row] for row in rows.tolist()])
                for place in range(window[1] - window[0]):
                    at = window[0] + place
                    t, t_next, x = sigmas[at], sigmas[at + 1], latents[at, rows]
                    v = self.velocity(x, t, embeds, pooled)
                    mean, std = flow_sde_step(x, v, t, t_next, noise_level=config.noise_level, t_second=sigmas[1])
                    with self.policy.reference():
                        v_ref = self.velocity(x, t, embeds, pooled)
                    ratio = (gaussian_log_prob(latents[at + 1, rows], mean, std) - log_probs[place, rows]).exp()
                    clipped = ratio.clamp(1 - config.clip_range, 1 + config.clip_range)
                    loss = torch.maximum(-advantages[rows] * ratio, -advantages[rows] * clipped).sum()
                    if config.kl_used:
                        loss = loss + config.kl_weight * (v - v_ref).square().mean((1, 2, 3)).sum()
                    (loss / (len(part) * (window[1] - window[0]))).backward()
            gradients.append(copies(self.parameters))
            torch.nn.utils.clip_grad_norm_(self.parameters, config.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.step += 1
        return gradients


def parity(first: list[list[Tensor]], second: list[list[Tensor]]) -> float:
    """The largest difference of a gradient, relative to the largest gradient of its optimiser step."""
    worst = 0.0
    for one, other in zip(first, second, strict=True):
        largest = max(float(g.abs().max()) for g in one)
        worst = max(worst, max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True)) / largest)
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds; each runs every side once")
    parser.add_argument("--kl", choices=("velocity", "none"), default="velocity")
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    config = embedded_config(kl=options.kl, kl_weight=1e-4)
    published = config.model_copy(update={"micro_batch": PUBLISHED_BATCH, "sample_batch": PUBLISHED_BATCH})
    sides = {
        "DiffusionTrainer": ours(config),
        "plain loop": PlainLoop(published).epoch,
        "plain loop, our batches": PlainLoop(config).epoch,
    }
    first = {name: epoch() for name, epoch in sides.items()}  # also the warm-up
    mine = first.pop("DiffusionTrainer")
    difference = max(parity(mine, theirs) for theirs in first.values())
    wall: dict[str, list[float]] = {name: [] for name in sides}
    used: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for turn in range(options.rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            began, before = time.perf_counter(), time.process_time()
            sides[name]()
            wall[name].append(time.perf_counter() - began)
            used[name].append(time.process_time() - before)
    images = config.group_size * config.prompts_per_step
    for name in names:
        rate, own = images / statistics.median(wall[name]), statistics.median(used[name])
        print(f"{name}: {rate:.1f} images/s, {own:.2f} s of processor time an epoch")
    print(f"{torch.get_num_threads()} threads, {options.rounds} rounds, kl {options.kl}")
    ratios = {
        "ratio": ratio(wall["plain loop"], wall["DiffusionTrainer"]),
        "ratio_processor_time": ratio(used["plain loop"], used["DiffusionTrainer"]),
        "ratio_our_batches": ratio(wall["plain loop, our batches"], wall["DiffusionTrainer"]),
        "ratio_our_batches_processor_time": ratio(used["plain loop, our batches"], used["DiffusionTrainer"]),
    }
    print(json.dumps({"name": "training_epoch", **ratios, "parity": difference}), flush=True)
    sys.exit(0 if difference < PARITY else 1)


def ratio(slow: list[float], fast: list[float]) -> float:
    """Median over the rounds."""
    return round(statistics.median(a / b for a, b in zip(slow, fast, strict=True)), 3)


if __name__ == "__main__":
    main()
