"""BaseReward's claim: a plain Bradley-Terry loss and a two-layer SiLU head make the best scalar reward model.

Four parts, as in the system's card, all on 16 features with a known reward. (1) Heads: on a reward with products of
projections the two-layer SiLU head must beat linear heads, tanh and ReLU, and depth must add nothing; two layers
without an activation must not gain, and on a linear reward the linear head must win. (2) Centring and length
normalisation must not help. (3) The mean of four members' scores must beat the average member; for linear heads, which
agree with one another, it must not. (4) A policy that climbs the hybrid reward must do well where answers can be
checked and where they can only be graded.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guerdon.claims.experiment import (
    Arm,
    Check,
    ClaimResult,
    Effect,
    ProgressBar,
    Section,
    above,
    arms_section,
    below,
    control_fails,
    difference,
    effect_of,
)
from guerdon.core.progress import progress as default_progress
from guerdon.metrics.pair_accuracy import pair_accuracy
from guerdon.models.scalar.head import RewardHead
from guerdon.objectives.advantages import group_advantages
from guerdon.objectives.preference import bradley_terry
from guerdon.policies.rollout import keyed_generator

SLUG = "basereward"
TITLE = "BaseReward: A Strong Baseline for Multimodal Reward Model"
CLAIM = (
    "a two-layer SiLU head on the plain Bradley-Terry loss ranks better than a linear head and other activations, and "
    "no worse than deeper ones; regularisers do not help, averaging models does, and a hybrid with a rule serves a "
    "policy best"
)

HEADS: dict[str, dict[str, Any]] = {
    "linear": {"num_layers": 1},
    "2 none": {"num_layers": 2, "activation": None},
    "2 tanh": {"num_layers": 2, "activation": "tanh"},
    "2 ReLU": {"num_layers": 2, "activation": "relu"},
    "2 SiLU": {"num_layers": 2, "activation": "silu"},
    "3 SiLU": {"num_layers": 3, "activation": "silu"},
    "4 SiLU": {"num_layers": 4, "activation": "silu"},
    "5 SiLU": {"num_layers": 5, "activation": "silu"},
}
CENTRES = (0.0, 1e-3, 1e-2, 1e-1)
REWARDS = ("base", "rule", "reward model", "hybrid", "hybrid, scores shuffled")


@dataclass(frozen=True)
class Size:
    """How large the experiment is. 16 features and 4,000 pairs are the card's; every head has the same steps.

    tested: as many pairs as tell heads apart to 0.003. candidates, features_of_skill, right (how many of a checkable
    prompt's candidates are correct): of the bandit. updates: enough, on a seed that is not among the claim's,
    for the hybrid to make up for its slow start; ``early``: where that start is shown, fewer than ``updates``.
    """

    features: int = 16
    pairs: int = 4000
    tested: int = 20_000
    validation: int = 1000
    steps: int = 1500
    batch: int = 256
    lr: float = 3e-3
    members: int = 4
    candidates: int = 16
    features_of_skill: int = 8
    right: int = 2
    group: int = 8
    prompts: int = 32
    updates: int = 2000
    early: int = 300
    graded: int = 1000


class World:
    """A true reward of deviation 2: one projection, and unless ``linear`` two products of projections as large as it.

    All five directions are orthonormal, so a linear head can know a third of the variance and no more.
    """

    def __init__(self, size: Size, seed: int, *, linear: bool) -> None:
        square = torch.randn(size.features, size.features, generator=keyed_generator(seed, "world"))
        self.directions, self.linear = torch.linalg.qr(square)[0][:, :5], linear

    def reward(self, x: Tensor) -> Tensor:
        """[..., features] -> [...]."""
        a, b, c, d, e = (x @ self.directions).unbind(-1)
        return 2 * a if self.linear else 2 / math.sqrt(3) * (a + b * c + d * e)

    def pairs(self, count: int, generator: torch.Generator, *, noiseless: bool = False) -> tuple[Tensor, Tensor]:
        """(chosen, rejected) features [count, features], labelled by Bradley-Terry or by the reward itself."""
        features = self.directions.shape[0]
        first, second = torch.randn(2, count, features, generator=generator)
        gap = self.reward(first) - self.reward(second)
        chance = (gap > 0).float() if noiseless else torch.sigmoid(gap)
        wins = (torch.rand(count, generator=generator) < chance)[:, None]
        return torch.where(wins, first, second), torch.where(wins, second, first)


@dataclass
class Task:
    """Labelled pairs to train on and to weigh members by, pairs in their true order to test on, and random lengths."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    lengths: Tensor

    @classmethod
    def of(cls, world: World, size: Size, seed: int) -> Task:
        generator = keyed_generator(seed, "pairs", int(world.linear))
        train, held = world.pairs(size.pairs, generator), world.pairs(size.validation, generator)
        test = world.pairs(size.tested, generator, noiseless=True)
        # Response lengths that have nothing to do with the reward: median 150 tokens, most between 40 and 600.
        lengths = torch.exp(5 + 0.7 * torch.randn(2, size.pairs, generator=generator)).clamp(min=1)
        return cls(train, held, test, lengths)


def fit(
    shape: dict[str, Any], task: Task, size: Size, key: tuple[int, int], *, by_length: bool = False, centre: float = 0.0
) -> RewardHead:
    """A head trained with Adam; ``key`` (seed, member) sets its first weights and the order of its pairs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1000 * key[0] + key[1])
        head = RewardHead(size.features, **shape)
    optimiser, generator = torch.optim.Adam(head.parameters(), lr=size.lr), keyed_generator(*key, "order")
    for _ in range(size.steps):
        rows = torch.randint(size.pairs, (size.batch,), generator=generator)
        chosen, rejected = head(torch.stack([side[rows] for side in task.train]))
        options: dict[str, Any] = {"centre": centre}
        if by_length:
            long, short = task.lengths[:, rows]
            options |= {"length_norm": "log", "chosen_length": long, "rejected_length": short}
        loss = bradley_terry(chosen, rejected, **options)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return head.eval().requires_grad_(False)


def accuracy(head: RewardHead, pairs: tuple[Tensor, Tensor]) -> float:
    """Share of pairs that the head orders right."""
    return pair_accuracy(head(pairs[0]), head(pairs[1]))


def ensemble(members: Sequence[RewardHead], task: Task) -> dict[str, float]:
    """Test accuracy of the average and the best member, of the mean score, and of scores weighted on validation."""
    chosen, rejected = (torch.stack([head(side) for head in members]) for side in task.test)
    right = torch.tensor([accuracy(head, task.validation) for head in members])
    margin = torch.stack([(head(task.validation[0]) - head(task.validation[1])).mean() for head in members])

    def weighted(weight: Tensor) -> float:
        weight = (weight / weight.sum())[:, None]
        return pair_accuracy((weight * chosen).sum(0), (weight * rejected).sum(0))

    singles = [pair_accuracy(*scores) for scores in zip(chosen, rejected)]
    return {
        "accuracy": weighted(torch.ones(len(members))),
        "average member": sum(singles) / len(singles),
        "best member": max(singles),
        "weighted by accuracy": weighted(right),
        "weighted by margin": weighted(margin),
        "gain": weighted(torch.ones(len(members))) - sum(singles) / len(singles),
    }


@dataclass
class Prompts:
    """Prompts with their candidate answers: features of quality x and of skill z, and what is true of each.

    The first half can be checked: the ``right`` most skilful answers are correct, skill being a projection of z with
    some of the quality that the reward model sees. The others can only be graded, in (0, 1), by their quality.
    """

    x: Tensor
    seen: Tensor
    checkable: Tensor
    truth: Tensor

    @classmethod
    def of(cls, world: World, size: Size, count: int, seed: int, generator: torch.Generator) -> Prompts:
        x = torch.randn(count, size.candidates, size.features, generator=generator)
        z = torch.randn(count, size.candidates, size.features_of_skill, generator=generator)
        talent = torch.randn(size.features_of_skill, generator=keyed_generator(seed, "talent"))
        quality = world.reward(x) / 2
        skill = z @ (talent / talent.norm()) + 0.5 * quality
        correct = torch.zeros_like(skill).scatter(1, skill.topk(size.right, dim=1).indices, 1.0)
        checkable = (torch.arange(count) < count // 2)[:, None].expand_as(skill)
        truth = torch.where(checkable, correct, torch.special.ndtr(quality))
        return cls(x, torch.cat([x, z, checkable[..., None].float()], dim=-1), checkable, truth)


def rewarded(kind: str, prompts: Prompts, head: RewardHead, generator: torch.Generator) -> Tensor:
    """The reward of every candidate [prompts, candidates]: rule 1 / 0, the raw score, or 1 if correct, else sigmoid."""
    matched = prompts.checkable & (prompts.truth == 1)
    if kind == "rule":
        return matched.float()
    score = head(prompts.x)
    if kind == "reward model":
        return score
    if kind.endswith("shuffled"):
        score = score.flatten()[torch.randperm(score.numel(), generator=generator)].view_as(score)
    return torch.where(matched, 1.0, torch.sigmoid(score))


def climb(kind: str, world: World, head: RewardHead, size: Size, seed: int) -> dict[str, float]:
    """GRPO on fresh prompts, groups of 8; then the policy's expected correctness and grade on prompts of its own.

    The policy is a small network over what is seen of each candidate, and a softmax over the candidates.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = RewardHead(size.features + size.features_of_skill + 1, num_layers=2, width=32)
    optimiser, generator = torch.optim.Adam(policy.parameters(), lr=size.lr), keyed_generator(seed, "climb")
    graded = Prompts.of(world, size, 2 * size.graded, seed, keyed_generator(seed, "graded"))
    early = {}
    for update in range(0 if kind == "base" else size.updates):
        if update == size.early:
            early = {f"{name} early": value for name, value in measured(policy, graded).items()}
        prompts = Prompts.of(world, size, size.prompts, seed, generator)
        log_probs = torch.log_softmax(policy(prompts.seen), dim=1)
        drawn = torch.multinomial(log_probs.detach().exp(), size.group, replacement=True, generator=generator)
        rewards = rewarded(kind, prompts, head, generator).gather(1, drawn)
        groups = torch.arange(size.prompts).repeat_interleave(size.group)
        advantages = group_advantages(rewards.flatten(), groups)
        loss = -(advantages * log_probs.gather(1, drawn).flatten()).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return measured(policy, graded) | early


@torch.no_grad()
def measured(policy: RewardHead, prompts: Prompts) -> dict[str, float]:
    """Expected truth under the policy: correctness of checkable prompts, grade of the others, and their mean."""
    found = (torch.softmax(policy(prompts.seen), dim=1) * prompts.truth).sum(1)
    checkable = prompts.checkable[:, 0]
    checked, graded = float(found[checkable].mean()), float(found[~checkable].mean())
    return {"checked": checked, "graded": graded, "both": (checked + graded) / 2}


def run(
    seeds: Sequence[int] = (11, 12, 13), progress: ProgressBar = default_progress, size: Size | None = None
) -> ClaimResult:
    """Run all four parts for each seed; about a minute a seed on one slow core.

    The effect is the accuracy on noiseless order of the two-layer SiLU head less the linear head's.
    """
    size, started = size or Size(), time.monotonic()
    heads = {name: Arm(name) for name in HEADS}
    regularised = {**{f"centre {c:g}": Arm(f"centre {c:g}") for c in CENTRES}, "log length": Arm("log length")}
    ensembles = {name: Arm(f"{size.members} x {name}") for name in ("2 SiLU", "linear")}
    policies = {name: Arm(name) for name in REWARDS}
    saturated = []
    with progress(len(seeds) * 4, "claim basereward") as bar:
        for seed in seeds:
            world, flat = World(size, seed, linear=False), World(size, seed, linear=True)
            task, plain = Task.of(world, size, seed), Task.of(flat, size, seed)
            made = {name: fit(shape, task, size, (seed, 0)) for name, shape in HEADS.items()}
            for name, head in made.items():
                heads[name].add({"accuracy": accuracy(head, task.test), "trained on": accuracy(head, task.train)})
            for name in ("linear", "2 none", "2 SiLU"):
                head = fit(HEADS[name], plain, size, (seed, 0))
                heads[name].add({"linear reward": accuracy(head, plain.test)})
            bar.advance(seed=seed, part="heads")
            for centre in CENTRES:
                head = fit(HEADS["2 SiLU"], task, size, (seed, 0), centre=centre) if centre else made["2 SiLU"]
                regularised[f"centre {centre:g}"].add({"accuracy": accuracy(head, task.test)})
            head = fit(HEADS["2 SiLU"], task, size, (seed, 0), by_length=True)
            regularised["log length"].add({"accuracy": accuracy(head, task.test)})
            bar.advance(seed=seed, part="regularisers")
            for name, arm in ensembles.items():
                others = [fit(HEADS[name], task, size, (seed, member)) for member in range(1, size.members)]
                arm.add(ensemble([made[name], *others], task))
            bar.advance(seed=seed, part="ensemble")
            for name, arm in policies.items():
                arm.add(climb(name, world, made["2 SiLU"], size, seed))
            saturated.append(float((torch.sigmoid(made["2 SiLU"](task.test[0])) > 0.99).float().mean()))
            bar.advance(seed=seed, part="policy")
    return _result(list(seeds), heads, regularised, ensembles, policies, saturated, size, time.monotonic() - started)


def _result(
    seeds: list[int],
    heads: dict[str, Arm],
    regularised: dict[str, Arm],
    ensembles: dict[str, Arm],
    policies: dict[str, Arm],
    saturated: list[float],
    size: Size,
    seconds: float,
) -> ClaimResult:
    silu, linear, blank = heads["2 SiLU"], heads["linear"], heads["2 none"]
    gain, control = difference(silu, linear, "accuracy"), difference(blank, linear, "accuracy")
    # The best by its mean over the seeds, which favours what the claim says cannot win.
    deeper = max((heads[f"{layers} SiLU"] for layers in (3, 4, 5)), key=lambda arm: arm.mean("accuracy"))
    off = regularised["centre 0"]
    helped = max((arm for arm in regularised.values() if arm is not off), key=lambda arm: arm.mean("accuracy"))
    hybrid, rule, model = policies["hybrid"], policies["rule"], policies["reward model"]
    shuffled = policies["hybrid, scores shuffled"]
    checks = [
        above("2-layer SiLU beats the linear head", gain),
        control_fails("two layers without activation do not", gain, control, difference(silu, blank, "accuracy")),
        above("SiLU beats tanh", difference(silu, heads["2 tanh"], "accuracy")),
        above("SiLU beats ReLU", difference(silu, heads["2 ReLU"], "accuracy")),
        below(
            f"no deeper head gains more than 0.01 (best: {deeper.name})", difference(deeper, silu, "accuracy"), 0.01
        ),
        above("on a linear reward the linear head wins", difference(linear, silu, "linear reward")),
        below(f"no regulariser gains more than 0.01 (best: {helped.name})", difference(helped, off, "accuracy"), 0.01),
        above("centring at 0.1 costs accuracy", difference(off, regularised["centre 0.1"], "accuracy")),
        above("the mean of 4 scores beats the average member", _gain(ensembles["2 SiLU"])),
        control_fails(
            "the mean of linear heads does not", _gain(ensembles["2 SiLU"]), _gain(ensembles["linear"]),
            difference(ensembles["2 SiLU"], ensembles["linear"], "gain"),
        ),
        above("hybrid beats the rule where answers are graded", difference(hybrid, rule, "graded")),
        above("hybrid beats the reward model where they are checked", difference(hybrid, model, "checked")),
        above("over both halves hybrid beats the rule", difference(hybrid, rule, "both")),
        above("over both halves hybrid beats the reward model", difference(hybrid, model, "both")),
        control_fails(
            "with shuffled scores it is no better than the rule", difference(hybrid, rule, "graded"),
            difference(shuffled, rule, "graded"), difference(hybrid, shuffled, "graded"),
        ),
    ]  # fmt: skip
    members = ["accuracy", "average member", "best member", "weighted by accuracy", "weighted by margin"]
    sections = [
        arms_section("heads: accuracy on noiseless order", list(heads.values()), list(heads["linear"].measures)),
        arms_section("regularisers, 2-layer SiLU", list(regularised.values()), ["accuracy"]),
        arms_section("ensembles: accuracy is of the mean score", list(ensembles.values()), members),
        arms_section(
            "policy: expected correctness and grade",
            list(policies.values()),
            ["checked", "graded", "both", "checked early"],
        ),
    ]
    notes = [
        f"each on its own ground: the hybrid's grade less the reward model's "
        f"{difference(hybrid, model, 'graded')}, its correctness less the rule's {difference(hybrid, rule, 'checked')}",
        f"a liked wrong answer earns nearly as much as a right one, so the hybrid is slow: after {size.early} updates "
        f"its correctness less the rule's is {difference(hybrid, rule, 'checked early')}",
        f"sigmoid of the score is above 0.99 for {sum(saturated) / len(saturated):.3f} of the preferred answers",
        "length normalisation is applied in training only; lengths here have nothing to do with the reward",
    ]
    return ClaimResult(
        SLUG, CLAIM, "accuracy, 2-layer SiLU less linear head", gain, control.value, checks,
        [*heads.values(), *regularised.values(), *ensembles.values(), *policies.values()], seeds, seconds, sections,
        notes,
    )  # fmt: skip


def _gain(arm: Arm) -> Effect:
    return effect_of(arm.values("gain"))


__all__ = ["CLAIM", "SLUG", "TITLE", "Check", "Section", "Size", "run"]
