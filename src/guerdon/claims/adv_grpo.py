"""Adv-GRPO (arXiv 2511.20256): a reward that learns from the generator's own samples cannot be run away from.

Two worlds, as in the system's card. (1) In the plane, a Gaussian generator climbs a linear discriminator, frozen or
updated by one of the published rules; what counts is the distance to the references, not the reward. (2) The tiny flow
of `textures` climbs a head on frozen random features: frozen, frozen with KL (the rival), or adversarial. The gold is
the maximum mean discrepancy (MMD) to the references in other features, which no arm sees.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guerdon.claims.experiment import (
    Arm,
    Check,
    ClaimResult,
    ProgressBar,
    Section,
    above,
    arms_section,
    below,
    control_fails,
    difference,
    effect_of,
)
from guerdon.claims.textures import (
    SIDE,
    USER_PROMPTS,
    alignment,
    eight_bit,
    grpo_settings,
    many,
    random_reward,
    real_textures,
    train_base,
)
from guerdon.claims.tiny_flow import TinyFlow
from guerdon.core.progress import progress as default_progress
from guerdon.metrics.diversity import diversity, mmd2
from guerdon.models.detectors.foundation_head import FoundationHead
from guerdon.models.detectors.small import WaveletStatsMLP
from guerdon.models.preprocess import IMAGENET_STATISTICS, normalise
from guerdon.objectives.advantages import group_advantages
from guerdon.objectives.discriminator import hinge
from guerdon.policies.rollout import keyed_generator
from guerdon.rewards.bank import BankScores, RewardBank
from guerdon.rewards.image.detector import ScoreReward
from guerdon.trainers.adversarial import UpdateSchedule, always, every, when_generator_leads
from guerdon.trainers.diffusion import DiffusionTrainer

SLUG = "adv-grpo"
TITLE = "The Image as Its Own Reward: Reinforcement Learning with Adversarial Reward for Image Generation"
CLAIM = (
    "a discriminator updated on the generator's samples brings the generator nearer to the references than the same "
    "discriminator frozen, with or without KL to the base"
)
ARMS = ("base", "adversarial", "frozen", "frozen + KL", "frozen + strong KL", "random reward")


@dataclass(frozen=True)
class Size:
    """How large the experiment is. ``updates`` of the plane's generator; the rest is the flow's."""

    updates: int = 400
    base_steps: int = 600
    references: int = 384
    head_steps: int = 200
    steps: int = 100
    group: int = 8
    groups: int = 8
    drawn: int = 256
    lr: float = 6e-4
    head_lr: float = 3e-3
    head_updates: int = 8
    kl: tuple[float, float] = (0.001, 0.01)


# The plane


def plane(schedule: UpdateSchedule | None, head_steps: int, seed: int, updates: int) -> tuple[float, float]:
    """Distance |mu| after ``updates`` updates of a generator N(mu, 0.6^2 I) that starts at 3, and its least on the way.

    References ~ N(0, I); the linear discriminator learns by the hinge loss; group-normalised policy gradient with 64
    samples a group and learning rate 0.05. schedule None: the discriminator is trained once and frozen.
    """
    generator = keyed_generator(seed, "plane")
    spread, rate, group = 0.6, 0.05, 64
    start = torch.randn(2, generator=generator)
    mu = 3 * start / start.norm()
    weight = torch.zeros(3, requires_grad=True)
    optimiser = torch.optim.Adam([weight], lr=0.05, betas=(0.5, 0.999))

    def score(points: Tensor) -> Tensor:
        return points @ weight[:2] + weight[2]

    def learn(count: int) -> None:
        for _ in range(count):
            real = torch.randn(group, 2, generator=generator)
            loss = hinge(score(real), score(mu + spread * torch.randn(group, 2, generator=generator)))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()

    learn(200)
    nearest, done, step = float(mu.norm()), 0, 0
    while done < updates:
        with torch.no_grad():
            noise = torch.randn(group, 2, generator=generator)
            reward = score(mu + spread * noise)
            reference = score(torch.randn(group, 2, generator=generator))
        turn = None if schedule is None else schedule(step, float(reference.mean()), float(reward.mean()))
        if turn is None or turn.generator:
            advantage = group_advantages(reward, torch.zeros(group, dtype=torch.long))
            mu = mu + rate * (advantage[:, None] * noise / spread).mean(0)
            done += 1
        if turn is not None and turn.detector:
            learn(head_steps)
        nearest, step = min(nearest, float(mu.norm())), step + 1
    return float(mu.norm()), nearest


def undirected(seed: int, updates: int) -> float:
    """|mu| after as many updates on a random reward."""
    generator = keyed_generator(seed, "undirected")
    start = torch.randn(2, generator=generator)
    mu = 3 * start / start.norm()
    for _ in range(updates):
        noise = torch.randn(64, 2, generator=generator)
        advantage = group_advantages(torch.rand(64, generator=generator), torch.zeros(64, dtype=torch.long))
        mu = mu + 0.05 * (advantage[:, None] * noise / 0.6).mean(0)
    return float(mu.norm())


# Rule -> its schedule (None: frozen) and the discriminator's steps in one of its turns.
RULES: dict[str, tuple[Callable[[], UpdateSchedule] | None, int]] = {
    "frozen": (None, 0),
    "updated every step": (always, 20),
    "when references score below (PickScore rule)": (lambda: when_generator_leads(share_samples=False), 1),
    "9 updates : 1 (DINO rule)": (lambda: every(9, 1, share_samples=False), 1),
}


# The flow


class RandomFeatures(nn.Module):
    """Frozen random wave filters with a vision model's interface: a CLS token and one token for each 4x4 patch.

    48 filters of 7x7 pixels, blind to the mean, each a wave of random direction, phase, colour and wavelength (2 to 8
    pixels) in a Gaussian window. A token is the log of their mean absolute responses over its patch, CLS that over the
    picture, standardised on the references and joined by a constant. So the references lie around one direction, and
    whatever differs from them, in whichever way, points elsewhere after normalisation.
    """

    def __init__(self, seed: int, references: Tensor, filters: int = 48) -> None:
        super().__init__()
        generator = keyed_generator(seed, "filters")
        angle, phase, size = (torch.rand(filters, 1, 1, generator=generator) for _ in range(3))
        down, across = torch.meshgrid(torch.arange(-3.0, 4.0), torch.arange(-3.0, 4.0), indexing="ij")
        along = across * torch.cos(math.pi * angle) + down * torch.sin(math.pi * angle)
        wave = torch.cos(2 * math.pi * (along / (2 * 4**size) + phase)) * torch.exp(-(down**2 + across**2) / 8)
        wave = wave - wave.mean((1, 2), keepdim=True)
        colour = F.normalize(torch.randn(filters, 3, generator=generator), dim=1)
        self.weight: Tensor
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("weight", colour[:, :, None, None] * F.normalize(wave.flatten(1), dim=1).view(-1, 1, 7, 7))
        self.config = SimpleNamespace(image_size=SIDE, patch_size=4, hidden_size=filters + 1, num_register_tokens=0)
        rows = self._responses(normalise(references, IMAGENET_STATISTICS))
        kinds = rows[:, :1], rows[:, 1:].flatten(0, 1)[:, None]  # CLS and patches differ in their spread
        self.register_buffer("shift", torch.cat([kind.mean(0) for kind in kinds]))
        self.register_buffer("scale", torch.cat([kind.std(0) for kind in kinds]))

    def _responses(self, pixels: Tensor) -> Tensor:
        response = F.conv2d(F.pad(pixels, (3, 3, 3, 3), mode="reflect"), self.weight).abs()
        tokens = F.avg_pool2d(response, 4).flatten(2).transpose(1, 2)
        return torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1).add(1e-3).log()

    def forward(self, pixel_values: Tensor) -> Any:
        rows = self._responses(pixel_values)
        place = [0] + [1] * (rows.shape[1] - 1)
        rows = torch.asinh((rows - self.shift[place]) / self.scale[place])
        constant = torch.full_like(rows[..., :1], rows.shape[-1] ** 0.5)
        return SimpleNamespace(last_hidden_state=torch.cat([rows, constant], dim=-1))


class Game:
    """Scores each step's pictures with the head; if adversarial, the head then learns from the same pictures."""

    def __init__(self, arm: str, head: FoundationHead, references: Tensor, size: Size, seed: int) -> None:
        self.adversarial, self.head, self.references, self.seed = arm == "adversarial", head, references, seed
        term = random_reward if arm == "random reward" else ScoreReward(head, "head")
        self.bank = RewardBank({"realness": (term, 1.0), "alignment": (alignment, 1.0)}, std="batch")
        self.images, self.size = torch.empty(0), size

    def __call__(self, prompts: list[str], images: Tensor, step: int, **columns: list[Any]) -> BankScores:
        self.images = eight_bit(images)
        return self.bank.score(prompts, self.images)

    def on_step_end(self, trainer: DiffusionTrainer, step: int, metrics: dict[str, float]) -> None:
        if self.adversarial:
            teach(
                self.head,
                self.references,
                self.images,
                self.size.head_updates,
                keyed_generator(self.seed, step, "head"),
            )


def teach(head: FoundationHead, real: Tensor, fake: Tensor, steps: int, generator: torch.Generator) -> float:
    """Some hinge steps of the head on 48 pictures of each kind; returns the accuracy before the last."""
    accuracy = 0.0
    for _ in range(steps):
        rows = [torch.randint(len(images), (48,), generator=generator) for images in (real, fake)]
        accuracy = head.update(real[rows[0]], fake[rows[1]])["accuracy"]
    return accuracy


def drawn(policy: TinyFlow, count: int) -> Tensor:
    """Test pictures of the users' prompts from fixed seeds by the ODE, [count, 3, 16, 16]."""
    prompts = many(USER_PROMPTS, count)
    return eight_bit(policy.generate(prompts, range(80_000, 80_000 + count), num_steps=10, batch_size=64))


class Gold:
    """MMD to unseen references in wavelet statistics, which are none of the head's features; one width for all arms."""

    def __init__(self, references: Tensor) -> None:
        self.statistics = WaveletStatsMLP().statistics
        rows = self.statistics(references)
        self.shift, self.scale = rows.mean(0), rows.std(0).clamp_min(1e-3)
        self.rows = self._features(references)
        self.width = float(torch.cdist(self.rows, self.rows).median())

    def _features(self, images: Tensor) -> Tensor:
        return torch.asinh((self.statistics(images) - self.shift) / self.scale)

    def __call__(self, images: Tensor) -> float:
        """Root of the unbiased squared MMD, 0 where that is not positive."""
        return max(mmd2(self.rows, self._features(images), bandwidth=self.width), 0.0) ** 0.5


def new_head(base: TinyFlow, references: Tensor, size: Size, seed: int) -> FoundationHead:
    """A head trained on the references against the base's pictures: what every arm starts with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = FoundationHead(RandomFeatures(seed, references), hidden=64, lr=size.head_lr)
    teach(head, references, drawn(base, len(references)), size.head_steps, keyed_generator(seed, "head"))
    return head


def climb(arm: str, base: TinyFlow, head: FoundationHead, references: Tensor, size: Size, seed: int) -> TinyFlow:
    """Train a copy of the base on the head, which the adversarial arm goes on training in place."""
    policy, game = base.copied(), Game(arm, head, references, size, seed)
    weight = {"frozen + KL": size.kl[0], "frozen + strong KL": size.kl[1]}.get(arm, 0.0)
    config = grpo_settings(
        steps=size.steps, group=size.group, groups=size.groups, lr=size.lr, kl_weight=weight, seed=seed
    )
    trainer = DiffusionTrainer(policy, game, USER_PROMPTS, config, callbacks=[game])
    trainer.train()
    policy.load_lora_state(trainer.lora_state())
    return policy


def run(
    seeds: Sequence[int] = (11, 12, 13), progress: ProgressBar = default_progress, size: Size | None = None
) -> ClaimResult:
    """Run both worlds for each seed; little more than a minute a seed on one idle core.

    The effect is by how much the adversarial arm's distance to the references is below that of the frozen reward.
    """
    size, started = size or Size(), time.monotonic()
    rules = {name: Arm(name) for name in (*RULES, "random reward")}
    arms = {name: Arm(name) for name in ARMS}
    with progress(len(seeds) * (1 + len(arms)), "claim adv-grpo") as bar:
        for seed in seeds:
            for name, rule in rules.items():
                if name == "random reward":
                    rule.add({"distance": undirected(seed, size.updates)})
                else:
                    make, head_steps = RULES[name]
                    end, nearest = plane(make() if make else None, head_steps, seed, size.updates)
                    rule.add({"distance": end, "nearest": nearest})
            bar.show(seed=seed, arm="base")
            base, prompts = train_base(seed, size.base_steps), many(USER_PROMPTS, size.references)
            generator = keyed_generator(seed, "references")
            references, unseen = (eight_bit(real_textures(prompts, generator)) for _ in range(2))
            gold, first = Gold(unseen), new_head(base, references, size, seed)
            bar.advance()
            for name, arm in arms.items():
                head = copy.deepcopy(first)
                policy = base if name == "base" else climb(name, base, head, references, size, seed)
                images = drawn(policy, size.drawn)
                row = {
                    "MMD": gold(images), "reward": float(head.score(images).mean()),
                    "reference reward": float(head.score(references).mean()),
                    "diversity": diversity(images, many(USER_PROMPTS, size.drawn)),
                }  # fmt: skip
                arm.add(row)
                bar.advance(arm=name, mmd=row["MMD"])
    return _result(list(seeds), rules, arms, time.monotonic() - started)


def _result(seeds: list[int], rules: dict[str, Arm], arms: dict[str, Arm], seconds: float) -> ClaimResult:
    base, tuned, frozen, random = arms["base"], arms["adversarial"], arms["frozen"], arms["random reward"]
    rivals = [arms["frozen + KL"], arms["frozen + strong KL"]]
    rival = min(rivals, key=lambda arm: arm.mean("MMD"))
    effect, control = difference(frozen, tuned, "MMD"), difference(base, random, "MMD")
    plane_frozen = rules["frozen"]
    checks = [
        above("plane: a frozen reward is run away from", difference(plane_frozen, rules["random reward"], "distance")),
        *(
            below(f"plane: {name} stays near the references", effect_of(arm.values("distance")), 1.0)
            for name, arm in rules.items()
            if name not in ("frozen", "random reward")
        ),
        above("plane: a random reward goes nowhere", effect_of(rules["random reward"].values("distance")), 2.0),
        above("flow: the frozen head pays its pictures more than the references",
              effect_of(frozen.values("reward") - frozen.values("reference reward"))),
        above("flow: adversarial ends nearer to the references than frozen", effect),
        above("flow: and nearer than the base", difference(base, tuned, "MMD")),
        control_fails("flow: a random reward does not", difference(base, tuned, "MMD"), control,
                      difference(random, tuned, "MMD")),
        above(f"flow: nearer than the better rival, {rival.name}", difference(rival, tuned, "MMD")),
    ]  # fmt: skip
    sections = [
        arms_section("plane: distance to the references (start 3)", list(rules.values()), ["distance", "nearest"]),
        arms_section("flow: MMD to unseen references, other features", list(arms.values()),
                     ["MMD", "reward", "reference reward", "diversity"]),
    ]  # fmt: skip
    notes = ["rewards of different arms are not comparable: the adversarial head is another one at every step"]
    return ClaimResult(
        SLUG, CLAIM, "MMD to the references, frozen less adversarial", effect, control.value, checks,
        [*(Arm(f"plane: {arm.name}", arm.measures) for arm in rules.values()), *arms.values()], seeds, seconds,
        sections, notes,
    )  # fmt: skip


__all__ = ["CLAIM", "SLUG", "TITLE", "Check", "Section", "Size", "run"]
