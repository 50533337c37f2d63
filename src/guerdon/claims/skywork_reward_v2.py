"""Skywork-Reward-V2 (arXiv 2507.01352): pairs that a gold and a best model agree on are worth more than more pairs.

Two parts, as in the system's card. (1) On points of a Gaussian with a known reward: few clean gold pairs, some silver
ones with wrong labels, many wild ones of which 44% are wrong. A model trained on silver and the wild pairs that pass
the consistency filter must rank unseen pairs better than one trained on silver alone, on silver and all of the wild
ones, and on silver and as many of them drawn at random. Pairs that both models call wrong enter turned round in an arm
of its own, whose gain is put to a check with 10 seeds or more. (2) Prompts in clusters, each with a criterion of its
own, and a judge who learns it from labelled examples: as many similar ones as `adaptive_k` asks for must label as well
as always eight, and better than random ones.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

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
from guerdon.claims.noisy_pairs import NoisyPairs, RewardNet
from guerdon.core.preferences import Message, Pair, text_of
from guerdon.core.progress import progress as default_progress
from guerdon.curation.committee import JudgeCommittee
from guerdon.curation.consistency import ConsistencyFilter, Decision, pair_probabilities
from guerdon.curation.labelling import AttributeBook, Ceiling, Labeller
from guerdon.curation.retrieval import PairRetriever
from guerdon.metrics.pair_accuracy import pair_accuracy
from guerdon.objectives.preference import bradley_terry
from guerdon.policies.rollout import keyed_generator

SLUG = "skywork-reward-v2"
TITLE = "Skywork-Reward-V2: Scaling Preference Data Curation via Human-AI Synergy"
CLAIM = (
    "wild preference pairs on whose labels a human-verified and the best reward model agree improve a reward model "
    "more than all of them do, and as many at random do not"
)
SEEDS_FOR_FLIPS = 10


@dataclass(frozen=True)
class Size:
    """How large the experiment is: pool sizes and shares of wrong labels are the card's.

    steps: updates of every model, of ``batch`` pairs. The models that see silver are kept at their best accuracy on
    gold, looked at ``looks`` times (the paper's rule); the gold model, which has no pairs to be looked at with, is
    stopped after ``gold_steps``. product: how far the reward is from linear; 0.1 gives the gold model about the
    accuracy of the card's prototype. clusters and below: of the second part.
    """

    gold: int = 300
    silver: int = 600
    wild: int = 8000
    tested: int = 4000
    silver_turned: float = 0.1
    wild_turned: float = 0.38
    product: float = 0.1
    steps: int = 800
    gold_steps: int = 200
    batch: int = 64
    looks: int = 20
    lr: float = 2e-3
    decay: float = 0.05
    clusters: int = 12
    labelled: int = 1000
    targets: int = 2000


class World:
    """Pairs of the four pools from one reward. Labels are drawn by Bradley-Terry and then a share is turned round,
    which makes 31% of silver and 44% of wild ones wrong; gold and test pairs are right."""

    def __init__(self, seed: int, size: Size) -> None:
        count = size.gold + size.silver + size.wild + size.tested
        self.points = NoisyPairs(count, seed, product=size.product, clean=True)
        pairs = self.points.pairs
        ends = np.cumsum([size.gold, size.silver, size.wild])
        self.gold, self.tested = pairs[: ends[0]], pairs[ends[2] :]
        self.silver = self._labelled(pairs[ends[0] : ends[1]], size.silver_turned, seed, "silver")
        self.wild = self._labelled(pairs[ends[1] : ends[2]], size.wild_turned, seed, "wild")

    def _labelled(self, pairs: Sequence[Pair], turned: float, seed: int, name: str) -> list[Pair]:
        better, worse = (self.points.reward(side) for side in self.points.sides(pairs))
        drawn, flipped = torch.rand(2, len(pairs), generator=keyed_generator(seed, "labels", name))
        wrong = (drawn > torch.sigmoid(better - worse)) != (flipped < turned)
        return [pair.swapped() if bad else pair for pair, bad in zip(pairs, wrong.tolist(), strict=True)]

    def wrong(self, pairs: Sequence[Pair]) -> float:
        """Share of labels that are wrong; nan for no pairs."""
        better, worse = (self.points.reward(side) for side in self.points.sides(pairs))
        return float((better < worse).float().mean())

    def accuracy(self, model: RewardNet, pairs: Sequence[Pair]) -> float:
        """Share of pairs whose label the model agrees with."""
        return pair_accuracy(*model.rewards(self.points.sides(pairs)))


def fit(world: World, pairs: Sequence[Pair], seed: int, size: Size, validation: Sequence[Pair] = ()) -> RewardNet:
    """A reward model by Bradley-Terry on ``pairs``; with ``validation`` the state that ranks these best."""
    model = RewardNet(world.points, seed)
    sides = world.points.sides(pairs)
    optimiser = torch.optim.AdamW(model.parameters(), lr=size.lr, weight_decay=size.decay)
    steps = size.steps if validation else size.gold_steps
    best, kept = -1.0, model.state_dict()
    generator = keyed_generator(seed, "order")
    for step in range(1, steps + 1):
        rows = torch.randint(len(pairs), (size.batch,), generator=generator)
        optimiser.zero_grad(set_to_none=True)
        bradley_terry(*model(sides[:, rows])).backward()
        optimiser.step()
        if validation and step % (steps // size.looks) == 0:
            accuracy = world.accuracy(model, validation)
            if accuracy > best:
                best, kept = accuracy, {name: value.clone() for name, value in model.state_dict().items()}
    if validation:
        model.load_state_dict(kept)
    return model


def curation(seed: int, size: Size) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Test accuracy of every arm, and what the filter let through: shares kept and flipped, and of wrong ones among
    them."""
    world = World(seed, size)
    wild, silver = world.wild, world.silver
    seed_model, gold_model = fit(world, silver, seed, size, world.gold), fit(world, world.gold, seed, size)
    decided = ConsistencyFilter(seed_model, gold_model)(wild)
    kept, flipped = (_taken(wild, decided, verb) for verb in ("keep", "flip"))
    drawn = np.random.default_rng(seed).permutation(len(wild))[: len(kept)]
    likely = pair_probabilities(seed_model, wild)
    pseudo = [pair if p > 0.5 else pair.swapped() for pair, p in zip(wild, likely, strict=True)]
    trained = {
        "seed + all wild": wild,
        "seed + random as many": [wild[row] for row in drawn],
        "seed + curated": kept,
        "seed + curated + flipped": [*kept, *flipped],
        "seed + pseudo-labels of best": pseudo,
    }
    models = {"seed only": seed_model, "gold model alone": gold_model}
    models |= {name: fit(world, [*silver, *more], seed, size, world.gold) for name, more in trained.items()}
    models["gold + curated"] = fit(world, [*world.gold, *kept], seed, replace(size, gold_steps=size.steps))
    rows = {name: {"accuracy": world.accuracy(model, world.tested)} for name, model in models.items()}
    quality = {
        "wrong in wild": world.wrong(wild),
        "kept": len(kept) / len(wild),
        "wrong in kept": world.wrong(kept),
        "flipped": len(flipped) / len(wild),
        "wrong in flipped": 1 - world.wrong(flipped),
    }
    return rows, quality


def _taken(pairs: Sequence[Pair], decided: Sequence[Decision], verb: str) -> list[Pair]:
    chosen = [(pair, decision) for pair, decision in zip(pairs, decided, strict=True) if decision.decision == verb]
    return [made for pair, decision in chosen if (made := decision.apply(pair)) is not None]


FEATURES, PLACES = 8, 16


class Clusters:
    """Prompts around ``clusters`` centres in 16-d; which of two answers (8-d points) is better depends on a criterion
    of its cluster, of which a third of the variance is common to all. Targets have 30% wrong labels, labelled pairs
    none. A prompt's text is its row, an answer's its row and side.
    """

    def __init__(self, seed: int, size: Size) -> None:
        rng = np.random.default_rng(seed)
        count = size.labelled + size.targets
        cluster = rng.integers(size.clusters, size=count)
        self.places = 2 * rng.normal(size=(size.clusters, PLACES))[cluster] + rng.normal(size=(count, PLACES))
        own, common = rng.normal(size=(size.clusters, FEATURES)), rng.normal(size=FEATURES)
        self.common = common / np.linalg.norm(common)
        criterion = np.sqrt(2 / 3) * own / np.linalg.norm(own, axis=1, keepdims=True) + np.sqrt(1 / 3) * self.common
        self.answers = rng.normal(size=(count, 2, FEATURES))
        better = np.einsum("nsf,nf->ns", self.answers, criterion[cluster]).argmax(axis=1)
        pairs = [self._pair(row, int(side)) for row, side in enumerate(better)]
        self.labelled, self.truth = pairs[: size.labelled], pairs[size.labelled :]
        wrong = rng.random(size.targets) < 0.3
        self.targets = [pair.swapped() if bad else pair for pair, bad in zip(self.truth, wrong, strict=True)]

    def _pair(self, row: int, better: int) -> Pair:
        answers = [[{"role": "assistant", "content": f"{row} {side}"}] for side in (better, 1 - better)]
        return Pair([{"role": "user", "content": str(row)}], answers[0], answers[1])

    def point(self, answer: Sequence[Message] | str) -> NDArray[np.float64]:
        """An answer's features [8]."""
        row, side = map(int, text_of(answer).split())
        return self.answers[row, side]

    def embed(self, texts: list[str]) -> NDArray[np.float64]:
        """Where the prompts lie, [N, 16]."""
        return self.places[[int(text.removeprefix("user: ")) for text in texts]]

    def elsewhere(self, texts: list[str]) -> NDArray[np.float64]:
        """The same for prompts that lie where chance has put them: the negative control."""
        rows = [int(text.removeprefix("user: ")) for text in texts]
        return np.stack([np.random.default_rng(row).normal(size=PLACES) for row in rows])

    def score(self, conversations: Sequence[Sequence[Message]], **options: Any) -> NDArray[np.float64]:
        """A reward model that has learnt what is common to the criteria, and nothing of the clusters."""
        return 2 * np.array([self.point(conversation[-1:]) @ self.common for conversation in conversations])

    def judge(self, prompt: Sequence[Message], a: Any, b: Any, *, examples: Sequence[Pair] = (), **options: Any) -> Any:
        """A judge who knows the common criterion, and lets each example vote by whether its better answer differs from
        its worse one as a does from b."""
        gap = self.point(a) - self.point(b)
        votes = 2 * float(self.common @ gap)
        votes += sum(float((self.point(one.chosen) - self.point(one.rejected)) @ gap) for one in examples)
        return None if votes == 0 else "a" if votes > 0 else "b"


def retrieval(seed: int, size: Size) -> dict[str, dict[str, float]]:
    """Share of right labels, and examples shown a pair, by how the examples are found."""
    world = Clusters(seed, size)
    likely = pair_probabilities(world, world.targets)
    shuffled = np.random.default_rng(seed).permutation(likely)
    always, never = np.zeros(len(likely)), np.ones(len(likely))
    arms = {
        "adaptive": (world.embed, likely),
        "always 8": (world.embed, always),
        "as many, dealt at random": (world.embed, shuffled),
        "random examples, adaptive": (world.elsewhere, likely),
        "random examples, always 8": (world.elsewhere, always),
        "none": (world.embed, never),
    }
    rows = {}
    for name, (embed, p) in arms.items():
        shown: list[int] = []

        def judge(*given: Any, examples: Sequence[Pair] = (), shown: list[int] = shown, **options: Any) -> Any:
            shown.append(len(examples))
            return world.judge(*given, examples=examples, **options)

        judge.deterministic = True  # type: ignore[attr-defined]
        ceiling = Ceiling(0.1)
        labeller = Labeller(
            JudgeCommittee([judge], seed=seed), PairRetriever(embed), AttributeBook(None, None, ceiling), ceiling
        )
        labeller.learn(world.labelled)
        winners = [one.vote.winner for one in labeller(world.targets, p)]
        made = [pair if winner == "a" else pair.swapped() for pair, winner in zip(world.targets, winners, strict=True)]
        right = [one.chosen == truth.chosen for one, truth in zip(made, world.truth, strict=True)]
        rows[name] = {"label accuracy": float(np.mean(right)), "examples": float(np.mean(shown))}
    return rows


def run(
    seeds: Sequence[int] = (11, 12, 13), progress: ProgressBar = default_progress, size: Size | None = None
) -> ClaimResult:
    """Run both parts for each seed; about ten seconds a seed on one slow core.

    The effect is test accuracy, seed + curated less seed only.
    """
    size, started = size or Size(), time.monotonic()
    arms: dict[str, Arm] = {}
    found: dict[str, Arm] = {}
    quality = Arm("consistency filter")
    with progress(2 * len(seeds), "claim skywork-reward-v2") as bar:
        for seed in seeds:
            rows, shares = curation(seed, size)
            quality.add(shares)
            for name, row in rows.items():
                arms.setdefault(name, Arm(name)).add(row)
            bar.advance(seed=seed, part="curation", accuracy=rows["seed + curated"]["accuracy"])
            for name, row in retrieval(seed, size).items():
                found.setdefault(name, Arm(name)).add(row)
            bar.advance(seed=seed, part="retrieval")
    return _result(list(seeds), arms, quality, found, time.monotonic() - started)


def _result(seeds: list[int], arms: dict[str, Arm], quality: Arm, found: dict[str, Arm], seconds: float) -> ClaimResult:
    base, curated, drawn = arms["seed only"], arms["seed + curated"], arms["seed + random as many"]
    wild, flipped = arms["seed + all wild"], arms["seed + curated + flipped"]
    gain, control = difference(curated, base, "accuracy"), difference(drawn, base, "accuracy")
    over_random = difference(curated, drawn, "accuracy")
    flips = difference(flipped, curated, "accuracy")
    adaptive, fixed = found["adaptive"], found["always 8"]
    chance = found["random examples, adaptive"]
    cleaner = quality.values("wrong in wild") - quality.values("wrong in kept")
    checks: list[Check] = [
        above("curated pairs improve on the seed model", gain),
        control_fails("as many at random do not", gain, control, over_random),
        above("curated beat all of the wild pairs", difference(curated, wild, "accuracy")),
        above("the filter keeps fewer wrong labels than there are", effect_of(cleaner)),
        above(
            "adaptive_k labels as well as always 8, within 0.02", difference(adaptive, fixed, "label accuracy"), -0.02
        ),
        below("and shows fewer examples", difference(adaptive, fixed, "examples")),
        above("similar examples label better than random ones", difference(adaptive, chance, "label accuracy")),
    ]
    if len(seeds) >= SEEDS_FOR_FLIPS:
        checks.append(above("pairs turned round add to it", flips))
    sections: list[Section] = [
        arms_section("reward models: accuracy on unseen true labels", list(arms.values()), ["accuracy"]),
        arms_section("the filter: shares of the wild pairs", [quality], list(quality.measures)),
        arms_section("examples for judges", list(found.values()), ["label accuracy", "examples"]),
    ]
    dealt = difference(adaptive, found["as many, dealt at random"], "label accuracy")
    few = "" if len(seeds) >= SEEDS_FOR_FLIPS else f"; no claim with fewer than {SEEDS_FOR_FLIPS} seeds"
    gold, pseudo = arms["gold model alone"], arms["seed + pseudo-labels of best"]
    notes = [
        f"pairs turned round because both models call them wrong add {flips} to the curated ones{few}",
        f"all wild pairs against none: {difference(wild, base, 'accuracy')}",
        f"the gold model alone, which the filter needs anyway, against seed + curated: "
        f"{difference(gold, curated, 'accuracy')}; gold and curated together against gold alone: "
        f"{difference(arms['gold + curated'], gold, 'accuracy')}",
        f"labelling all wild pairs by the best model against seed + curated: {difference(pseudo, curated, 'accuracy')}",
        f"adaptive_k against the same numbers of examples dealt out at random: {dealt}",
    ]
    return ClaimResult(
        SLUG, CLAIM, "accuracy on unseen pairs, seed + curated less seed only", gain, control.value, checks,
        [*arms.values(), quality, *found.values()], seeds, seconds, sections, notes,
    )  # fmt: skip


__all__ = ["CLAIM", "SLUG", "TITLE", "Check", "Section", "Size", "run"]
