"""Noisy rewards (arXiv 2505.22653): reasoning is learnt from rewards that lie, and from the mere look of reasoning.

A. A linear softmax policy over five answers, trained by GRPO (four rollouts a question, no KL) on 200 questions whose
answers a random linear map gives, and tested on 200 others. Each question's reward is turned round with probability p,
for all of its rollouts together. The advantage shrinks by 1 - 2 p on average: p = 0.4 learns five times as slowly, and
where it ends should lie a few points lower (at most five; 3.8 in the paper), 0.5 should teach nothing (the negative
control), and 0.6 the opposite. Turning single rollouts round should do the same. The paper compares peaks, so training
goes on for 800 updates: with 150, smaller steps and twice the features p = 0.4 is still 0.22 behind.

B. A tabular policy chooses, for each of six kinds of question, how much it reasons (five levels) and which phrases it
uses (five levels). Reasoning makes answers right, up to a level beyond which it hurts; a reward model misses most right
answers of the harder kinds. Where phrases show the reasoning (they are its level), topping up low scores by phrases
should beat the reward model alone, and phrases alone must drive the policy beyond the best level. Where phrases are
chosen freely (the negative control), topping up must gain nothing, and phrases alone must be learnt without accuracy.

The size was chosen among nine, and the least gain by topping up (0.02) set, on the seeds 1 to 3, where every check
passes and p = 0.4 loses 0.038. On the seeds it is judged on the loss is 0.048 with an interval to 0.085, which leaves
that check unclear; on nine further seeds, run afterwards, it is 0.039 (0.027 to 0.051).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from guerdon.claims.experiment import (
    Arm,
    ClaimResult,
    ProgressBar,
    above,
    arms_section,
    below,
    control_fails,
    difference,
)
from guerdon.core.progress import progress as default_progress
from guerdon.metrics.reward_noise import noise_rates
from guerdon.objectives.advantages import group_advantages
from guerdon.objectives.reward_noise import calibrated, noisy_rewards

SLUG = "noisy-rewards-rpr"
CLAIM = (
    "a policy learns to reason almost as well when the rewards of up to 40% of the questions are turned round, and "
    "topping up the low scores of a noisy reward model by the look of reasoning makes up for its false negatives"
)
LEVELS = (0.0, 0.2, 0.4, 0.5, 0.6)
SHARED = {f"p = {p:g}": (p, "group") for p in LEVELS}
SINGLE = {f"p = {p:g}, by rollout": (p, "rollout") for p in (0.4, 0.5)}
CHOICES = 5
EFFORTS = 5
RIGHT_AT = (0.15, 0.35, 0.55, 0.75, 0.60)
"""Probability of a right answer at each level of reasoning; the last level overthinks."""
MISSED = (0.1, 0.3, 0.5, 0.9, 0.97, 0.99)
"""Share of the right answers of each kind of question that the reward model scores as wrong."""
Pays = Literal["raw", "calibrated", "patterns"]


@dataclass(frozen=True)
class Size:
    """questions: of training and of testing, in ``features`` dimensions; rollouts and updates of both parts."""

    questions: int = 200
    features: int = 12
    rollouts: int = 4
    updates: int = 800
    lr: float = 4.0
    groups: int = 16
    reward_updates: int = 150
    reward_lr: float = 0.2


def learn(p: float, unit: str, size: Size, seed: int) -> dict[str, float]:
    """GRPO under noise -> held-out and training P(right), and the share of rewards that were turned round."""
    rng = np.random.default_rng([seed, 7])
    world = rng.normal(size=(size.features, CHOICES))
    asked = rng.normal(size=(2, size.questions, size.features))
    right = torch.from_numpy((asked @ world).argmax(axis=2))
    train, test = torch.from_numpy(asked)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.zeros(size.features, CHOICES, dtype=torch.float64)
    groups = torch.arange(size.questions).repeat_interleave(size.rollouts)
    earned_all, paid_all = [], []
    for _ in range(size.updates):
        chance = (train @ weights).softmax(dim=1)
        said = torch.multinomial(chance, size.rollouts, replacement=True, generator=generator)
        earned = (said == right[0][:, None]).double().flatten().numpy()
        shape = (size.questions, 1 if unit == "group" else size.rollouts)
        struck = np.broadcast_to(rng.random(shape) < p, (size.questions, size.rollouts)).flatten()
        paid = noisy_rewards(earned, struck)
        gains = group_advantages(torch.from_numpy(paid), groups, eps=1e-6, unbiased=True).double()
        weights = weights + size.lr * _gradient(train, chance, said, gains.view(said.shape))
        earned_all.append(earned)
        paid_all.append(paid)
    held = float((test @ weights).softmax(dim=1).gather(1, right[1][:, None]).mean())
    seen = float((train @ weights).softmax(dim=1).gather(1, right[0][:, None]).mean())
    rates = noise_rates(np.concatenate(earned_all), np.concatenate(paid_all))
    return {"held-out P(right)": held, "training P(right)": seen, "turned": rates.changed}


def _gradient(train: Tensor, chance: Tensor, said: Tensor, gains: Tensor) -> Tensor:
    """Mean over questions and rollouts of A grad log pi(answer | question)."""
    chosen = torch.nn.functional.one_hot(said, CHOICES).double()
    directions = ((chosen - chance[:, None]) * gains[:, :, None]).mean(dim=1)
    return train.T @ directions / len(train)


def climb(pays: Pays, shown: bool, size: Size, seed: int) -> dict[str, float]:
    """GRPO on a reward model's scores, the same topped up by patterns, or patterns alone.

    shown: the phrases are the level of reasoning; else they are a choice of their own that nothing depends on. Returns
    the expected accuracy, its like on the kinds of question that the reward model misses, and the two mean levels.
    """
    generator = torch.Generator().manual_seed(seed)
    kinds = len(MISSED)
    effort, words = torch.zeros(kinds, EFFORTS), torch.zeros(kinds, EFFORTS)
    hit, missed = torch.tensor(RIGHT_AT), torch.tensor(MISSED)
    kind = torch.arange(kinds).repeat_interleave(size.groups)
    ids = torch.arange(len(kind)).repeat_interleave(size.rollouts)
    for _ in range(size.reward_updates):
        chances = effort.softmax(dim=1)[kind], words.softmax(dim=1)[kind]
        level, phrase = (torch.multinomial(one, size.rollouts, True, generator=generator) for one in chances)
        right = torch.rand(level.shape, generator=generator) < hit[level]
        seen = right & (torch.rand(level.shape, generator=generator) >= missed[kind][:, None])
        # Scores of a reward model stand near 0 and 1, and not exactly there.
        score = seen.float() * 0.8 + 0.1 + 0.03 * torch.randn(level.shape, generator=generator)
        pattern = (level if shown else phrase).float() / (EFFORTS - 1)
        flat, look = score.flatten().numpy(), pattern.flatten().numpy()
        paid = {"raw": flat, "calibrated": calibrated(flat, look), "patterns": look}[pays]
        gains = group_advantages(torch.from_numpy(np.asarray(paid, dtype=np.float64)), ids).view(level.shape)
        effort = effort + size.reward_lr * _table_gradient(kind, chances[0], level, gains, kinds)
        if not shown:
            words = words + size.reward_lr * _table_gradient(kind, chances[1], phrase, gains, kinds)
    chance = effort.softmax(dim=1)
    accuracy = chance @ hit
    levels = torch.arange(EFFORTS).float()
    used = effort if shown else words
    return {
        "accuracy": float(accuracy.mean()),
        "accuracy where missed": float(accuracy[missed >= 0.9].mean()),
        "reasoning": float((chance @ levels).mean()),
        "phrases": float((used.softmax(dim=1) @ levels).mean()),
    }


def _table_gradient(kind: Tensor, chance: Tensor, taken: Tensor, gains: Tensor, kinds: int) -> Tensor:
    chosen = torch.nn.functional.one_hot(taken, EFFORTS).float()
    directions = ((chosen - chance[:, None]) * gains[:, :, None]).mean(dim=1)
    counts = torch.bincount(kind, minlength=kinds)[:, None]
    return torch.zeros(kinds, EFFORTS).index_add(0, kind, directions) / counts


def run(
    seeds: Sequence[int] = (11, 12, 13), *, size: Size | None = None, progress: ProgressBar = default_progress
) -> ClaimResult:
    """Measure the claim over ``seeds``."""
    started = time.monotonic()
    size = size or Size()
    flips = {name: Arm(name) for name in (*SHARED, *SINGLE)}
    pays: tuple[Pays, ...] = ("raw", "calibrated", "patterns")
    models = {(one, shown): Arm(one if shown else f"{one}, free phrases") for shown in (True, False) for one in pays}
    with progress(len(seeds) * (len(flips) + len(models)), SLUG) as bar:
        for seed in seeds:
            for name, arm in flips.items():
                arm.add(learn(*(SHARED | SINGLE)[name], size, seed))  # type: ignore[arg-type]
                bar.advance(1, seed=seed, arm=name)
            for (one, shown), arm in models.items():
                arm.add(climb(one, shown, size, seed))
                bar.advance(1, seed=seed, arm=arm.name)
    measure, chance = "held-out P(right)", 1 / CHOICES
    untrained = Arm("untrained", {measure: [chance] * len(seeds)})
    clean, much, half, more = (flips[f"p = {p:g}"] for p in (0.0, 0.4, 0.5, 0.6))
    learnt, none = difference(much, untrained, measure), difference(half, untrained, measure)
    raw, topped, only = (models[one, True] for one in pays)
    free_raw, free_topped, free_only = (models[one, False] for one in pays)
    gained = difference(topped, raw, "accuracy")
    checks = [
        above("p = 0.4 learns", learnt, 0.1),
        above("and loses at most five points to p = 0", difference(much, clean, measure), -0.05),
        control_fails("p = 0.5 teaches nothing", learnt, none, difference(much, half, measure)),
        below("p = 0.6 teaches the opposite", difference(more, untrained, measure)),
        above("turning rollouts round costs no more than turning questions round", difference(
            flips["p = 0.4, by rollout"], much, measure), -0.05),
        above("topping up low scores beats the reward model alone", gained, 0.02),
        control_fails("phrases that say nothing of the reasoning gain nothing", gained, difference(
            free_topped, free_raw, "accuracy"), difference(topped, free_topped, "accuracy")),
        above("phrases alone are climbed beyond the best level of reasoning", difference(only, topped, "reasoning")),
        above("and are learnt where they say nothing", difference(free_only, free_raw, "phrases"), 1.0),
        below("without accuracy", difference(free_only, free_raw, "accuracy")),
    ]  # fmt: skip
    return ClaimResult(
        slug=SLUG,
        claim=CLAIM,
        measure="held-out P(right) above chance at p = 0.4",
        effect=learnt,
        control=none.value,
        checks=checks,
        arms=[*flips.values(), *models.values()],
        seeds=list(seeds),
        seconds=time.monotonic() - started,
        sections=[
            arms_section("rewards turned round", list(flips.values()), [measure, "training P(right)", "turned"]),
            arms_section(
                "a reward model with false negatives, and patterns", list(models.values()),
                ["accuracy", "accuracy where missed", "reasoning", "phrases"],
            ),
        ],
        notes=["on bases without a latent ability the same noise destroys training (Llama-3.1-8B in the paper)"],
    )  # fmt: skip


quick = partial(run, size=replace(Size(), updates=10, reward_updates=10, questions=40, groups=4))
"""The same in seconds, for tests: it shows that everything runs, not that the claim holds."""
