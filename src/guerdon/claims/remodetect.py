"""ReMoDetect (arXiv 2405.17382): aligned text is detectable by a reward model, and ordered training detects better.

Four parts, as in the system's card. (1) An aligned policy is its human source tilted along the reward: in a Gaussian
world the AUROC of a reward model trained on human preferences alone must be Phi(beta cos / sqrt 2). (2) The same with
texts: a small language model of human texts, aligned by best-of-n to the judge's taste. (3) The reward model is trained
on with generated > mixed > human texts of one model and graded on others' texts, mixed ones among them. The baseline is
the plain pair loss at the same total weight: against a plain loss of smaller weight a gain could be a larger step. The
negative control has a middle class that says nothing: a human or a generated text, by chance. (4) Replay must keep more
of the accuracy on preferences at equal detection.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from guerdon.claims.experiment import (
    Arm,
    Check,
    ClaimResult,
    ProgressBar,
    above,
    arms_section,
    below,
    control_fails,
    difference,
    effect_of,
)
from guerdon.core.preferences import text_of
from guerdon.core.progress import progress as default_progress
from guerdon.curation.detection_texts import Writer, continued_by, human_pairs, human_texts, language_model
from guerdon.curation.mixture import Mixed, MixtureAugment
from guerdon.metrics.detection import auroc
from guerdon.metrics.pair_accuracy import pair_accuracy
from guerdon.objectives.ordered_preference import ordered_preference
from guerdon.objectives.preference import bradley_terry
from guerdon.objectives.replay_anchor import replay_anchor
from guerdon.policies.rollout import keyed_generator

SLUG = "remodetect"
TITLE = "ReMoDetect: Reward Models Recognize Aligned LLM's Generations"
CLAIM = (
    "texts of aligned language models score above human ones under a reward model that never saw them, and training it "
    "to order generated, mixed and human texts, with replay, detects unseen models' texts better"
)

BETAS = (-1.0, 0.0, 0.5, 1.0, 2.0, 3.0)
DIMENSIONS = 20


@dataclass(frozen=True)
class Size:
    """How large the experiment is: the card's Gaussian world; the numbers of texts and the widths are ours.

    The anchor's coefficient is the paper's, on the mean over replayed texts: there one text is replayed for each
    triple, here as many as a batch holds. draws: worlds a seed, whose measures are averaged.
    """

    gaussian_pairs: int = 3000
    gaussian_tested: int = 4000
    passages: int = 1500
    preferences: int = 1200
    texts: int = 160
    tested: int = 240
    draws: int = 4
    features: int = 1024
    width: int = 64
    base_epochs: int = 8
    epochs: int = 30
    batch: int = 32
    learning_rate: float = 2e-3
    replay: float = 0.01
    replayed: int = 32


def tilted(beta: float, size: Size, seed: int) -> tuple[float, float]:
    """(AUROC, theory) of a reward model of Gaussian features between N(beta w, I) and N(0, I), |w| = 1."""
    rng = np.random.default_rng([seed, 1])
    w = rng.standard_normal(DIMENSIONS)
    w /= np.linalg.norm(w)
    gaps = rng.standard_normal((size.gaussian_pairs, DIMENSIONS)) - rng.standard_normal(
        (size.gaussian_pairs, DIMENSIONS)
    )
    liked = rng.random(size.gaussian_pairs) < 1 / (1 + np.exp(-gaps @ w))
    learnt = LogisticRegression(fit_intercept=False).fit(gaps, liked).coef_[0]
    learnt /= np.linalg.norm(learnt)
    human, policy = rng.standard_normal((2, size.gaussian_tested, DIMENSIONS))
    found = auroc((policy + beta * w) @ learnt, human @ learnt)
    return found, float(norm.cdf(beta * float(w @ learnt) / math.sqrt(2)))


class TextReward(nn.Module):
    """A reward of hashed words and word pairs: two hidden layers, the same for the same seed."""

    def __init__(self, size: Size, seed: int) -> None:
        super().__init__()
        self.read = HashingVectorizer(
            ngram_range=(1, 2), n_features=size.features, alternate_sign=False, token_pattern=r"\w+|[^\w\s]"
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body = nn.Sequential(
                nn.Linear(size.features, size.width), nn.SiLU(), nn.Linear(size.width, size.width), nn.SiLU(),
                nn.Linear(size.width, 1),
            )  # fmt: skip

    def features(self, texts: Sequence[str]) -> Tensor:
        """Relative frequencies [N, features], of unit length."""
        return torch.from_numpy(self.read.transform(texts).toarray()).float()

    def forward(self, features: Tensor) -> Tensor:
        """[N, features] -> rewards [N]."""
        return self.body(features).squeeze(-1)

    @torch.no_grad()
    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Rewards of texts, [N]."""
        return self(self.features(texts)).double().numpy()


def fitted(
    model: TextReward, loss: Callable[[Tensor], Tensor], count: int, epochs: int, size: Size, key: tuple[int | str, ...]
) -> TextReward:
    """Train ``model`` on ``loss(rows)`` of batches of the ``count`` rows, in an order that follows from ``key``."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=size.learning_rate, weight_decay=0.01, fused=True)
    generator = keyed_generator(*key)
    for _ in range(epochs):
        for rows in torch.randperm(count, generator=generator).split(size.batch):
            optimiser.zero_grad(set_to_none=True)
            loss(rows).backward()
            optimiser.step()
    return model


@dataclass(frozen=True)
class Triples:
    """Features [N, F] of generated, mixed and human texts."""

    generated: Tensor
    mixed: Tensor
    human: Tensor

    def with_middle(self, seed: int) -> Triples:
        """The same with a middle class that says nothing: a generated or a human text of another row, by chance."""
        generator = keyed_generator(seed, "middle")
        order = torch.randperm(len(self.human), generator=generator)
        which = torch.rand(len(order), 1, generator=generator) < 0.5
        return replace(self, mixed=torch.where(which, self.generated[order], self.human[order]))

    def turned(self, seed: int) -> Triples:
        """The same with generated and human exchanged in half of the rows: labels by chance."""
        which = torch.rand(len(self.human), 1, generator=keyed_generator(seed, "labels")) < 0.5
        return replace(
            self,
            generated=torch.where(which, self.human, self.generated),
            human=torch.where(which, self.generated, self.human),
        )


class World:
    """One seed's texts: preferences, a model to learn from, and others to be found out."""

    def __init__(self, size: Size, seed: int, draw: int = 0) -> None:
        self.size, self.seed = size, 1000 * draw + seed
        seed = self.seed
        self.model = language_model(seed, size.passages)
        self.preferences = human_pairs(size.preferences, seed)
        self.held = human_pairs(400, 300_000 + seed)
        writers = {name: Writer(name, n, seed=seed) for name, n in (("taught", 4), ("b", 4), ("c", 8), ("d", 2))}
        self.human, self.tested = human_texts(size.texts, 100_000 + seed), human_texts(size.tested, 200_000 + seed)
        self.generated = continued_by(writers.pop("taught"), self.human, seed, self.model)
        self.unseen = {name: continued_by(one, self.tested, seed, self.model) for name, one in writers.items()}
        self.mixed = self._mixed(self.human, self.generated)
        self.unseen_mixed = {name: self._mixed(self.tested, texts) for name, texts in self.unseen.items()}

    def _mixed(self, human: Sequence[str], generated: Sequence[str]) -> list[str]:
        mix = MixtureAugment(seed=self.seed)
        made = [mix(one, other) for one, other in zip(human, generated, strict=True)]
        return [one.text if isinstance(one, Mixed) else other for one, other in zip(made, human, strict=True)]

    def base(self) -> TextReward:
        """The reward model that human preferences alone make."""
        return self.preferring("preferences", shuffled=False)

    def preferring(self, key: str, shuffled: bool) -> TextReward:
        """A reward model of the preferences; ``shuffled`` turns half of the labels round."""
        model = TextReward(self.size, self.seed)
        sides = [model.features([text_of(getattr(pair, side)) for pair in self.preferences])
                 for side in ("chosen", "rejected")]  # fmt: skip
        if shuffled:
            which = torch.rand(len(sides[0]), 1, generator=keyed_generator(self.seed, "turned")) < 0.5
            sides = [torch.where(which, sides[1], sides[0]), torch.where(which, sides[0], sides[1])]

        def loss(rows: Tensor) -> Tensor:
            return bradley_terry(model(sides[0][rows]), model(sides[1][rows]))

        return fitted(model, loss, len(sides[0]), self.size.base_epochs, self.size, (self.seed, key))

    def triples(self, model: TextReward) -> Triples:
        """Features of what is trained on."""
        return Triples(*(model.features(texts) for texts in (self.generated, self.mixed, self.human)))

    def measured(self, model: TextReward) -> dict[str, float]:
        """Detection of unseen models' texts, of their mixed texts, of both, and accuracy on clean preferences."""
        human = model.score(self.tested)
        pure = np.mean([auroc(model.score(texts), human) for texts in self.unseen.values()])
        mixed = np.mean([auroc(model.score(texts), human) for texts in self.unseen_mixed.values()])
        clean = [pair if pair.row["truth"] > 0 else pair.swapped() for pair in self.held]
        chosen, rejected = (model.score([text_of(getattr(pair, side)) for pair in clean])
                            for side in ("chosen", "rejected"))  # fmt: skip
        return {
            "generated": float(pure), "mixed": float(mixed), "detection": float((pure + mixed) / 2),
            "preferences": pair_accuracy(chosen, rejected),
        }  # fmt: skip


def tuned(
    world: World, base: TextReward, triples: Triples, weights: Sequence[float], replay: float, key: str = "tuning"
) -> TextReward:
    """``base`` trained on with these weights of (generated, mixed), (generated, human), (mixed, human)."""
    model, size = copy.deepcopy(base), world.size
    replayed = model.features(
        [text_of(getattr(pair, side)) for pair in world.preferences for side in ("chosen", "rejected")]
    )
    with torch.no_grad():
        reference = base(replayed)
    generator = keyed_generator(world.seed, "replay")

    def loss(rows: Tensor) -> Tensor:
        rewards = torch.stack([model(part[rows]) for part in (triples.generated, triples.mixed, triples.human)], dim=1)
        total = ordered_preference(rewards, weights=weights)
        if replay:
            drawn = torch.randint(len(replayed), (size.replayed,), generator=generator)
            total = total + replay_anchor(model(replayed[drawn]), reference[drawn], coefficient=replay, reduce="mean")
        return total

    return fitted(model, loss, len(triples.human), size.epochs, size, (world.seed, key))


ARMS: Mapping[str, tuple[tuple[float, float, float], str]] = {
    "plain": ((0.0, 1.0, 0.0), ""),
    "plain, equal weight": ((0.0, 1.7, 0.0), ""),
    "mixed taken for generated": ((0.0, 1.35, 0.35), ""),
    "ordered": ((0.35, 1.0, 0.35), ""),
    "ordered, random middle": ((0.35, 1.0, 0.35), "middle"),
    "ordered, random labels": ((0.35, 1.0, 0.35), "labels"),
}


def trained_on(world: World, base: TextReward) -> dict[str, dict[str, float]]:
    """Measures of all arms of parts 3 and 4 in one world."""
    triples = world.triples(base)
    changed = {"": triples, "middle": triples.with_middle(world.seed), "labels": triples.turned(world.seed)}
    found = {"untuned": world.measured(base)}
    for name, (weights, change) in ARMS.items():
        found[name] = world.measured(tuned(world, base, changed[change], weights, world.size.replay))
    found["ordered, no replay"] = world.measured(tuned(world, base, triples, ARMS["ordered"][0], 0.0))
    return found


def averaged(found: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Means over worlds of each arm's measures."""
    return {
        name: {key: float(np.mean([one[name][key] for one in found])) for key in values}
        for name, values in found[0].items()
    }


def aligned(world: World, base: TextReward, blind: TextReward) -> dict[str, dict[str, float]]:
    """AUROC of the reward model for best-of-n texts by the judge's taste, by n; and of one of shuffled labels."""
    human = world.tested
    scores, blind_scores = base.score(human), blind.score(human)
    found = {}
    for name, writer in {
        **{f"best of {n}": Writer("plain", n, 0.0) for n in (1, 2, 4, 16)},
        "worst of 4": Writer("plain", 4, 0.0, worst=True),
    }.items():
        texts = continued_by(writer, human, world.seed, world.model)
        found[name] = {"auroc": auroc(base.score(texts), scores)}
        if name == "best of 16":
            found["best of 16, shuffled preferences"] = {"auroc": auroc(blind.score(texts), blind_scores)}
    return found


def run(
    seeds: Sequence[int] = (11, 12, 13), progress: ProgressBar = default_progress, size: Size | None = None
) -> ClaimResult:
    """Run all parts for each seed; about half a minute a seed on one slow core.

    The effect is the AUROC on unseen models' generated and mixed texts, ordered training less the plain loss of equal
    weight.
    """
    size, started = size or Size(), time.monotonic()
    gaussian = {beta: Arm(f"beta = {beta:g}") for beta in BETAS}
    texts: dict[str, Arm] = {}
    arms: dict[str, Arm] = {}
    with progress(size.draws * len(seeds), "claim remodetect") as bar:
        for seed in seeds:
            for beta, arm in gaussian.items():
                found, theory = tilted(beta, size, seed)
                arm.add({"auroc": found, "theory": theory})
            found_texts, found_arms = [], []
            for draw in range(size.draws):
                world = World(size, seed, draw)
                base = world.base()
                found_texts.append(aligned(world, base, world.preferring("shuffled", shuffled=True)))
                found_arms.append(trained_on(world, base))
                bar.advance(seed=seed, world=draw)
            for name, values in averaged(found_texts).items():
                texts.setdefault(name, Arm(name)).add(values)
            for name, values in averaged(found_arms).items():
                arms.setdefault(name, Arm(name)).add(values)
    return _result(list(seeds), gaussian, texts, arms, time.monotonic() - started)


def _result(
    seeds: list[int], gaussian: dict[float, Arm], texts: dict[str, Arm], arms: dict[str, Arm], seconds: float
) -> ClaimResult:
    ordered, matched = arms["ordered"], arms["plain, equal weight"]
    random_middle, free = arms["ordered, random middle"], arms["ordered, no replay"]
    gain = difference(ordered, matched, "detection")
    shown = difference(random_middle, matched, "detection")
    off = [abs(arm.values("auroc") - arm.values("theory")) for arm in gaussian.values()]
    single = texts["best of 1"].values("auroc")
    checks: list[Check] = [
        below("Gaussian: AUROC is Phi(beta cos / sqrt 2), largest deviation", effect_of(np.max(off, axis=0)), 0.04),
        below("Gaussian: without alignment at chance, distance", effect_of(abs(gaussian[0.0].values("auroc") - 0.5)),
              0.04),
        above("texts: best of 16 is found", effect_of(texts["best of 16"].values("auroc")), 0.75),
    ]  # fmt: skip
    for fewer, more in ((1, 2), (2, 4), (4, 16)):
        rise = difference(texts[f"best of {more}"], texts[f"best of {fewer}"], "auroc")
        checks.append(above(f"texts: best of {more} more than best of {fewer}", rise))
    blind = texts["best of 16, shuffled preferences"].values("auroc")
    checks += [
        below("texts: best of 1 is at chance, distance", effect_of(abs(single - 0.5)), 0.07),
        below("texts: worst of 4 scores below human", effect_of(texts["worst of 4"].values("auroc")), 0.5),
        below("texts: not by a reward model of shuffled preferences", effect_of(blind),
              0.5 * (0.5 + texts["best of 16"].mean("auroc"))),
        above("training detects unseen models better than the untuned model",
              difference(ordered, arms["untuned"], "detection")),
        above("ordered training beats the plain loss of equal weight, with mixed texts in the test", gain),
        control_fails("a random middle does not", gain, shown, difference(ordered, random_middle, "detection")),
        below("random labels do not train", difference(arms["ordered, random labels"], arms["untuned"], "detection"),
              0.5 * max(difference(ordered, arms["untuned"], "detection").value, 0.0)),
        above("replay keeps accuracy on preferences", difference(ordered, free, "preferences")),
        above("at equal detection", difference(ordered, free, "detection"), -0.02),
    ]  # fmt: skip
    names = ["generated", "mixed", "detection", "preferences"]
    sections = [
        arms_section("Gaussian: an aligned policy against its source", list(gaussian.values()), ["auroc", "theory"]),
        arms_section("a small language model, aligned by best-of-n", list(texts.values()), ["auroc"]),
        arms_section("training on one model's texts, graded on three others'", list(arms.values()), names),
    ]
    notes = [
        f"against the plain loss of weight 1, ordered training gains {difference(ordered, arms['plain'], 'detection')}",
        "against mixed texts taken for generated ones, at equal weight, it gains "
        f"{difference(ordered, arms['mixed taken for generated'], 'detection')}",
        f"on generated texts alone, over the plain loss of equal weight: {difference(ordered, matched, 'generated')}",
        f"on mixed texts alone: {difference(ordered, matched, 'mixed')}",
    ]
    measure = "AUROC on unseen models' generated and mixed texts, ordered less plain of equal weight"
    everything = [*gaussian.values(), *texts.values(), *arms.values()]
    return ClaimResult(
        SLUG, CLAIM, measure, gain, shown.value, checks, everything, seeds, seconds, sections, notes
    )  # fmt: skip


__all__ = ["CLAIM", "SLUG", "TITLE", "Size", "run"]
