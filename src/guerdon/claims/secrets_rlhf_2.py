"""Secrets of RLHF II (arXiv 2401.06080): an ensemble's disagreement with labels says which are wrong, and repairs them.

Three parts, as in the system's card, on points of a Gaussian with a known reward and about a third of the labels wrong.
(1) Ten one-epoch models measure each pair's strength; flipping, margins and soft labels by it must rank unseen pairs
better than training on the labels as they are; by shuffled strengths they must not, and on clean labels there must be
nothing to gain. Shown beside it: a reward that one epoch is too little to learn. (2) The MetaRM step and its variants:
a policy is simulated by the best of several answers under a trained model, and what counts is how its answers are
ranked and spread, beside accuracy on the old distribution. (3) Contrastive losses on two dropout views, measured
against the same two passes without them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
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
from guerdon.claims.noisy_pairs import FEATURES, NoisyPairs, RewardNet
from guerdon.core.preferences import Pair
from guerdon.core.progress import progress as default_progress
from guerdon.curation.relabel import relabel
from guerdon.curation.strength import Strength, by_strength, ensemble_strength
from guerdon.metrics.pair_accuracy import pair_accuracy
from guerdon.objectives.contrastive import Kind, Mode
from guerdon.objectives.meta_reward import difference_loss, spread_ratio
from guerdon.objectives.preference import bradley_terry
from guerdon.policies.rollout import keyed_generator
from guerdon.trainers.dropout_views import RATE, View, add_prototypes, two_view_loss
from guerdon.trainers.meta_reward import MetaRMStep

SLUG = "secrets-rlhf-2"
TITLE = "Secrets of RLHF in Large Language Models Part II: Reward Modeling"
CLAIM = (
    "relabelling by the strength that an ensemble gives each pair trains a better reward model on noisy preferences, "
    "and the MetaRM step one that tells the shifted policy's responses apart better"
)
# Arm -> arguments of `relabel`.
RELABELLED: dict[str, dict[str, Any]] = {
    "base": {"strategy": "none"},
    "flip 10%": {"strategy": "flip", "quantile": 0.1},
    "flip 20%": {"strategy": "flip", "quantile": 0.2},
    "margin": {"strategy": "margin"},
    "flip 10% + margin": {"strategy": "flip+margin", "quantile": 0.1},
    "soft + margin": {"strategy": "soft+margin"},
}
SHUFFLED = ("flip 10%", "soft + margin")
ETA = 2.0
META: dict[str, MetaRMStep | None] = {
    "plain": None,
    "as printed": MetaRMStep(ETA),
    "as printed, eta 0.5": MetaRMStep(0.5),
    "as printed, eta 8": MetaRMStep(8.0),
    "second order": MetaRMStep(ETA, order="second"),
    "looking the other way": MetaRMStep(-ETA),
    "ascent kept, eta 0.02": MetaRMStep(0.02, keep_ascent=True),
    "-eta J added": MetaRMStep(ETA, added=True),
    "as printed, old responses": MetaRMStep(ETA),
}
JUDGED = ("plain", "as printed")
CONTRAST: dict[str, tuple[Kind, Mode] | None] = {
    "two passes only": None,
    "SimCSE, pairs": ("simcse", "pairs"),
    "SimCSE, diff": ("simcse", "diff"),
    "SwAV, pairs": ("swav", "pairs"),
    "SwAV, diff": ("swav", "diff"),
}


@dataclass(frozen=True)
class Size:
    """How large the experiment is; the batch is the paper's.

    ``lr`` is high enough that the second epoch already over-fits, as the paper finds (figures 7 and 19): the strength
    of one-epoch models can repair only what further epochs spoil. slow_lr: of the world where that is not so.
    repeats: trainings, from different starts, that are averaged in the arms that a check reads. alone_epochs: passes
    over a tenth of the pairs. responses: k of the meta set. best_of: the simulated policy's draws.
    """

    pairs: int = 4000
    tested: int = 20_000
    members: int = 10
    epochs: int = 6
    repeats: int = 3
    alone_epochs: int = 12
    batch: int = 32
    lr: float = 3e-3
    slow_lr: float = 1e-3
    responses: int = 4
    best_of: int = 16
    prompts: int = 4000


def fit(
    world: NoisyPairs,
    pairs: Sequence[Pair],
    seed: int,
    size: Size,
    *,
    epochs: int,
    step: MetaRMStep | None = None,
    meta: Tensor | None = None,
    contrast: tuple[Kind, Mode] | None = None,
    two_passes: bool = False,
) -> RewardNet:
    """A reward model trained on ``pairs`` with their margins and smoothing, by Adam, in an order keyed by the seed.

    step, meta: the MetaRM step and its responses [P, k, 24]. two_passes: dropout views, with or without ``contrast``.
    """
    model = RewardNet(world, seed, dropout=RATE if two_passes else 0.0)
    points = world.sides(pairs)
    margin = torch.tensor([pair.margin or 0.0 for pair in pairs])
    smoothing = torch.tensor([pair.smoothing or 0.0 for pair in pairs])
    prototypes = None
    if contrast is not None and contrast[0] == "swav":
        prototypes = add_prototypes(model, model.head.hidden_size, mode=contrast[1], seed=seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=size.lr, fused=True)
    generator = keyed_generator(seed, "order")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout's
        for _ in range(epochs):
            for rows in torch.randperm(len(pairs), generator=generator).split(size.batch):
                options = {"margin": margin[rows], "label_smoothing": smoothing[rows]}
                ranking = partial(_ranking, batch=points[:, rows], options=options)
                optimiser.zero_grad(set_to_none=True)
                if two_passes:
                    passes = partial(_view, model, points[:, rows])
                    _contrasted(passes, contrast, prototypes, options).backward()
                elif step is None or meta is None:
                    ranking(model).backward()
                else:
                    drawn = meta[torch.randint(len(meta), (size.batch,), generator=generator)]
                    step(model, ranking, partial(_difference, responses=drawn))
                optimiser.step()
    return model


def _ranking(model: nn.Module, batch: Tensor, options: dict[str, Any]) -> Tensor:
    return bradley_terry(*model(batch), **options)


def _difference(model: nn.Module, responses: Tensor) -> Tensor:
    return difference_loss(model(responses))


def _view(model: RewardNet, batch: Tensor) -> View:
    features = model.body(batch)
    return View(*model.head(features), *features)


def _contrasted(
    passes: Callable[[], View], contrast: tuple[Kind, Mode] | None, prototypes: Tensor | None, options: dict[str, Any]
) -> Tensor:
    """Published weights; without ``contrast`` only the ranking of both passes."""
    if contrast is None:
        return two_view_loss(passes, beta=0.0, **options)
    return two_view_loss(passes, kind=contrast[0], mode=contrast[1], prototypes=prototypes, **options)


def measured_strength(world: NoisyPairs, seed: int, size: Size) -> Strength:
    """The ensemble's strength of the world's pairs: one epoch a member, the same start, different orders."""
    return ensemble_strength(
        world.pairs, lambda pairs, key: fit(world, pairs, key, size, epochs=1), members=size.members, seed=seed
    )


class Test:
    """Unseen pairs in their true order, from the pairs' own distribution and from a policy that climbed a model.

    The policy is the best of ``best_of`` answers under a model trained on the noisy labels; half of its prompts are the
    meta set [P, k, 24] and half are for measuring. ``old`` and ``old_meta`` are plain draws of the same shapes. With no
    ``climbed`` model there is no policy.
    """

    def __init__(self, world: NoisyPairs, climbed: RewardNet | None, seed: int, size: Size) -> None:
        self.world = world
        generator = keyed_generator(seed, "test")
        self.pairs = self._ordered(torch.randn(2, size.tested, FEATURES, generator=generator))
        if climbed is None:
            return
        shape = (2 * size.prompts, size.responses, FEATURES)
        self.old, self.old_meta = torch.randn(shape, generator=generator).chunk(2)
        drawn = torch.randn(*shape[:2], size.best_of, FEATURES, generator=generator)
        best = climbed.rewards(drawn).argmax(-1)[..., None, None].expand(-1, -1, 1, FEATURES)
        self.shifted, self.meta = drawn.gather(2, best).squeeze(2).chunk(2)
        self.shifted_pairs = self._ordered(self.shifted[:, :2].transpose(0, 1))

    def _ordered(self, both: Tensor) -> Tensor:
        first, second = both
        better = (self.world.reward(first) > self.world.reward(second))[:, None]
        return torch.stack([torch.where(better, first, second), torch.where(better, second, first)])

    def accuracy(self, model: RewardNet) -> float:
        """Share of unseen pairs that the model ranks in their true order."""
        return pair_accuracy(*model.rewards(self.pairs))

    def measures(self, model: RewardNet) -> dict[str, float]:
        """Accuracy, J and the scale-free spread on the policy's answers, beside those on the old distribution."""
        shifted, old = model.rewards(self.shifted), model.rewards(self.old)
        return {
            "accuracy": self.accuracy(model),
            "shifted accuracy": pair_accuracy(*model.rewards(self.shifted_pairs)),
            "spread ratio": float(spread_ratio(shifted, old)),
            "shifted J": float(difference_loss(shifted)),
            "J": float(difference_loss(old)),
        }


def run(
    seeds: Sequence[int] = (11, 12, 13), progress: ProgressBar = default_progress, size: Size | None = None
) -> ClaimResult:
    """Run all three parts for each seed; about a minute a seed on one slow core.

    The effect is the accuracy on unseen clean pairs of soft labels with margins, less that of the labels as they are.
    """
    size, started = size or Size(), time.monotonic()
    arms = {name: Arm(name) for name in (*RELABELLED, *(f"{name}, shuffled" for name in SHUFFLED))}
    clean = {name: Arm(f"clean: {name}") for name in ("base", "flip 10%")}
    slow = {name: Arm(f"slow: {name}") for name in ("base", *SHUFFLED)}
    meta, contrast = ({name: Arm(name) for name in names} for names in (META, CONTRAST))
    tenths = [Arm(f"tenth {number + 1}") for number in range(10)]
    with progress(len(seeds) * (12 + len(arms) + len(meta) + len(contrast)), "claim secrets-rlhf-2") as bar:
        for seed in seeds:
            bar.show(seed=seed, arm="strength")
            world = NoisyPairs(size.pairs, seed)
            fitted = partial(fit, world, seed=seed, size=size, epochs=size.epochs)
            strength = measured_strength(world, seed, size)
            test = Test(world, fitted(world.pairs), seed, size)
            bar.advance()
            for arm, measures in zip(tenths, by_tenth(world, strength, test, seed, size)):
                arm.add(measures)
                bar.advance(arm=arm.name)
            for name, arm in arms.items():
                arm.add(relabelled(name, world, strength, test, seed, size))
                bar.advance(arm=name)
            once = replace(size, repeats=1)
            for group, other, settings in (
                (clean, NoisyPairs(size.pairs, seed, clean=True), once),
                (slow, NoisyPairs(size.pairs, seed, product=1 / 3), replace(once, lr=size.slow_lr)),
            ):
                measured, unseen = measured_strength(other, seed, settings), Test(other, None, seed, size)
                for name, arm in group.items():
                    arm.add(relabelled(name, other, measured, unseen, seed, settings))
            bar.advance(arm="other worlds")
            for name, arm in meta.items():
                responses = test.old_meta if name.endswith("old responses") else test.meta
                trained = partial(fit, world, world.pairs, size=size, epochs=size.epochs, meta=responses)
                found = [test.measures(trained(start, step=META[name])) for start in starts(seed, size, name in JUDGED)]
                arm.add({measure: float(np.mean([row[measure] for row in found])) for measure in found[0]})
                bar.advance(arm=name)
            for name, arm in contrast.items():
                model = fitted(world.pairs, contrast=CONTRAST[name], two_passes=True)
                arm.add({"accuracy": test.accuracy(model)})
                bar.advance(arm=name)
    return _result(list(seeds), arms, clean, slow, meta, contrast, tenths, time.monotonic() - started)


def starts(seed: int, size: Size, repeated: bool = True) -> list[int]:
    """Seeds of the trainings whose measures are averaged; none is that of the model which the policy climbed."""
    return [seed + 1000 * repeat for repeat in range(1, 1 + (size.repeats if repeated else 1))]


def by_tenth(world: NoisyPairs, strength: Strength, test: Test, seed: int, size: Size) -> list[dict[str, float]]:
    """Each tenth of the pairs by strength: mu, deviation, share of right labels, and a model trained on it alone."""
    right = [pair.row["truth"] > 0 for pair in world.pairs]
    rows = []
    parts = np.array_split(np.argsort(strength.mean, kind="stable"), 10)
    for one, part in zip(by_strength(strength.mean, strength.std, right), parts):
        model = fit(world, [world.pairs[row] for row in part], seed, size, epochs=size.alone_epochs)
        accuracy = test.accuracy(model)
        rows.append({"mu": one.mean, "deviation": one.std, "right labels": one.outcome, "alone": accuracy})
    return rows


def relabelled(name: str, world: NoisyPairs, strength: Strength, test: Test, seed: int, size: Size) -> dict[str, float]:
    """Mean accuracy of models trained on the pairs relabelled by ``RELABELLED[name]``, and what the labels are like.

    A name that ends in "shuffled" is the control: the same strengths, dealt out to other pairs.
    """
    plain, mean = name.removesuffix(", shuffled"), strength.mean
    if plain != name:
        mean = np.random.default_rng(seed).permutation(mean)
    pairs = relabel(world.pairs, mean, **RELABELLED[plain])
    accuracy = [test.accuracy(fit(world, pairs, start, size, epochs=size.epochs)) for start in starts(seed, size)]
    wrong = np.mean([pair.row["truth"] < 0 for pair in pairs])
    return {"accuracy": float(np.mean(accuracy)), "wrong labels": float(wrong), "mu < 0": float(np.mean(mean < 0))}


def _result(
    seeds: list[int], arms: dict[str, Arm], clean: dict[str, Arm], slow: dict[str, Arm], meta: dict[str, Arm],
    contrast: dict[str, Arm], tenths: list[Arm], seconds: float,
) -> ClaimResult:  # fmt: skip
    base, plain, printed = arms["base"], meta["plain"], meta["as printed"]
    effects = {name: difference(arm, base, "accuracy") for name, arm in arms.items()}
    effect, control = effects["soft + margin"], effects["soft + margin, shuffled"]
    checks = [
        below("labels: a model of the weakest tenth alone is worse than chance",
              effect_of(tenths[0].values("alone")), 0.5),
        *(above(f"labels: {name} beats base", effects[name]) for name in RELABELLED if name != "base"),
        *(
            control_fails(f"labels: {name} by shuffled strengths does not", effects[name], effects[f"{name}, shuffled"],
                          difference(arms[name], arms[f"{name}, shuffled"], "accuracy"))
            for name in SHUFFLED
        ),
        below("labels: right ones leave flip 10% nothing to gain",
              difference(clean["flip 10%"], clean["base"], "accuracy"), 0.01),
        above("MetaRM as printed raises J on shifted answers", difference(printed, plain, "shifted J")),
        above("MetaRM as printed spreads shifted answers wider (scale-free)",
              difference(printed, plain, "spread ratio")),
        above("MetaRM as printed ranks shifted answers better", difference(printed, plain, "shifted accuracy")),
        above("MetaRM as printed keeps its accuracy within 0.01", difference(printed, plain, "accuracy"), -0.01),
    ]  # fmt: skip
    sections = [
        arms_section("labels: tenths of the pairs by strength", tenths, ["mu", "deviation", "right labels", "alone"]),
        arms_section("labels: accuracy on unseen clean pairs", list(arms.values()), ["accuracy", "wrong labels"]),
        arms_section("labels all right", list(clean.values()), ["accuracy", "mu < 0"]),
        arms_section("a reward that one epoch is too little for", list(slow.values()), ["accuracy", "mu < 0"]),
        arms_section("MetaRM: answers of a shifted policy, and old ones", list(meta.values()), list(plain.measures)),
        arms_section("contrastive losses on two dropout views", list(contrast.values()), ["accuracy"]),
    ]  # fmt: skip
    return ClaimResult(
        SLUG, CLAIM, "accuracy on unseen clean pairs, soft + margin less base", effect, control.value, checks,
        [*tenths, *arms.values(), *clean.values(), *slow.values(),
         *(replace(arm, name=f"MetaRM: {arm.name}") for arm in meta.values()),
         *(replace(arm, name=f"contrast: {arm.name}") for arm in contrast.values())],
        seeds, seconds, sections, _notes(plain, meta, contrast, slow),
    )  # fmt: skip


def _notes(plain: Arm, meta: dict[str, Arm], contrast: dict[str, Arm], slow: dict[str, Arm]) -> list[str]:
    lost = difference(slow["soft + margin"], slow["base"], "accuracy")
    notes = [f"where one epoch is too little to learn the reward, soft + margin less base is {lost}"]
    for name, arm in meta.items():
        if name != "plain":
            moved = (f"{measure} {difference(arm, plain, measure)}" for measure in ("shifted J", "spread ratio"))
            notes.append(f"MetaRM {name}, less plain: {', '.join(moved)}")
    alone = contrast["two passes only"]
    for name, arm in contrast.items():
        if name != alone.name:
            notes.append(f"{name}, less two passes without contrast: accuracy {difference(arm, alone, 'accuracy')}")
    return notes


__all__ = ["CLAIM", "SLUG", "TITLE", "Check", "Section", "Size", "run"]
