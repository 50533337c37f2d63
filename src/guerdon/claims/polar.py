"""POLAR (arXiv 2507.05197): telling policies apart, learnt without labels, makes a reward model of few labels.

Two parts, as in the system's card. (1) Policies are Markov chains over ten symbols, all of which occur equally often,
so that only transitions tell policies apart. A reward model of a reference and a candidate is pre-trained on triples of
a pool of policies and fine-tuned on 150 ranked triples of others; it must rank triples of unseen policies better than
without the pre-training and than the cosine of symbol counts. (2) A policy trained by it towards a reference must earn
more and come closer to the policy of the references. Where symbol counts differ, the cosine is the thing to beat: that
world is measured too, as the limit of the claim.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
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
from guerdon.core.preferences import Pair, text_of
from guerdon.core.progress import progress as default_progress
from guerdon.curation.triples import PolicyPool, PolicyTripleSampler, rank_to_pair
from guerdon.metrics.policy_discrimination import policy_discrimination, reference_preference_accuracy
from guerdon.objectives.advantages import group_advantages
from guerdon.objectives.preference import bradley_terry
from guerdon.policies.rollout import keyed_generator

SLUG = "polar"
TITLE = "Pre-Trained Policy Discriminators are General Reward Models"
CLAIM = (
    "a reward model pre-trained without labels to tell policies apart needs few ranked triples to judge candidates "
    "against a reference, where one without pre-training stays behind"
)

SYMBOLS, STEPS = 10, 32


@dataclass(frozen=True)
class Size:
    """How large the experiment is: the card's numbers of triples and policies; the widths and rates are ours.

    draws: fine-tuning is repeated on as many draws of ``ranked`` triples and averaged, since it matters which few there
    are.
    """

    policies: int = 64
    triples: int = 6000
    ranked: int = 150
    validated: int = 150
    draws: int = 4
    tested: int = 1500
    held_out: int = 24
    width: int = 64
    pretraining: int = 600
    tuning: int = 200
    batch: int = 256
    lr: float = 2e-3
    updates: int = 120
    references: int = 8
    group: int = 16


def chain(rng: np.random.Generator, skewed: bool) -> NDArray[np.float64]:
    """Transition matrix [10, 10]: three random permutations and a little of everything, so that all symbols are equally
    frequent in the long run; ``skewed``: four fifths of it a distribution of symbols of the policy's own instead."""
    weights = rng.dirichlet(np.full(3, 3.0))
    eye = np.eye(SYMBOLS)
    moves = sum(weight * eye[rng.permutation(SYMBOLS)] for weight in weights)
    matrix = 0.9 * np.asarray(moves) + 0.1 / SYMBOLS
    return 0.2 * matrix + 0.8 * rng.dirichlet(np.ones(SYMBOLS)) if skewed else matrix


def walk(matrix: NDArray[np.float64], count: int, rng: np.random.Generator) -> list[str]:
    """``count`` trajectories of 32 steps from a random symbol, as texts of digits."""
    ends = matrix.cumsum(1)
    state = rng.integers(SYMBOLS, size=count)
    path = [state]
    for _ in range(STEPS):
        state = np.minimum((rng.random((count, 1)) > ends[state]).sum(1), SYMBOLS - 1)
        path.append(state)
    return ["".join(map(str, row)) for row in np.stack(path, 1).tolist()]


def walker(matrix: NDArray[np.float64], name: str) -> Callable[[Sequence[str], int], list[str]]:
    """The chain as a sampler of a `PolicyPool`."""
    number = int(name.rpartition(" ")[2])
    return lambda prompts, seed: walk(matrix, len(prompts), np.random.default_rng([seed, number]))


def bigrams(texts: Sequence[str]) -> Tensor:
    """How often each of the 100 transitions occurs, as a share: float32 [N, 100]."""
    digits = np.frombuffer("".join(texts).encode(), dtype=np.uint8).reshape(len(texts), -1).astype(np.int64) - ord("0")
    moves = digits[:, :-1] * SYMBOLS + digits[:, 1:]
    rows = np.repeat(np.arange(len(texts)), moves.shape[1])
    counts = np.zeros((len(texts), SYMBOLS**2), dtype=np.float32)
    np.add.at(counts, (rows, moves.ravel()), 1 / STEPS)
    return torch.from_numpy(counts)


class Discriminator(nn.Module):
    """r(reference, candidate) from embedded transition counts: their product and squared difference, then two layers.

    ``blind``: without the reference, of which it sees the embedding of nothing.
    """

    def __init__(self, width: int, blind: bool = False) -> None:
        super().__init__()
        self.embed, self.blind = nn.Linear(SYMBOLS**2, width), blind
        self.judge = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, reference: Tensor, candidate: Tensor) -> Tensor:
        # Shares of 1/100 on average: brought to the order of 1.
        one = self.embed((torch.zeros_like(reference) if self.blind else reference) * SYMBOLS)
        other = self.embed(candidate * SYMBOLS)
        return self.judge(torch.cat([one * other, (one - other) ** 2], dim=-1)).squeeze(-1)


@dataclass(frozen=True)
class Triples:
    """Transition counts [N, 100] of reference, better and worse candidate."""

    reference: Tensor
    better: Tensor
    worse: Tensor

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> Triples:
        sides = [pair.row["reference"] for pair in pairs], [text_of(p.chosen) for p in pairs]
        return cls(*map(bigrams, (*sides, [text_of(p.rejected) for p in pairs])))

    def shuffled(self, side: str, generator: torch.Generator) -> Triples:
        """The same with one side's rows in random order."""
        order = torch.randperm(len(self.reference), generator=generator)
        return Triples(**{**self.__dict__, side: getattr(self, side)[order]})

    def gap(self, model: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        return model(self.reference, self.better), model(self.reference, self.worse)

    @torch.no_grad()
    def accuracy(self, model: Callable[[Tensor, Tensor], Tensor]) -> float:
        return reference_preference_accuracy(torch.stack(self.gap(model), dim=1).numpy(), resamples=1).value


class World:
    """One seed's policies: a pool to pre-train on, others to rank, and others again to be tested on."""

    def __init__(self, size: Size, seed: int, skewed: bool = False) -> None:
        self.size, self.seed = size, seed
        rng = np.random.default_rng([seed, int(skewed)])
        self.chains = {
            f"{room} {number}": chain(rng, skewed)
            for room, count in (("pool", size.policies), ("ranked", size.held_out), ("test", size.held_out))
            for number in range(count)
        }
        self.rng = rng

    def room(self, name: str) -> dict[str, NDArray[np.float64]]:
        return {key: matrix for key, matrix in self.chains.items() if key.startswith(name)}

    def sampled(self, room: str, count: int) -> tuple[Triples, list[tuple[str, str]]]:
        """Unlabelled triples of a room's policies, and which they are of."""
        pool = PolicyPool({name: walker(matrix, name) for name, matrix in self.room(room).items()})
        triples = PolicyTripleSampler([""], pool, seed=self.seed, tidy=False).sample(count)
        return Triples.of([triple.to_pair() for triple in triples]), [triple.policies for triple in triples]

    def ranked(self, room: str, count: int) -> Triples:
        """Labelled triples: the best answer is a policy's own, a quarter of the second and three of the third are
        another's."""
        matrices = list(self.room(room).values())
        pairs: list[Pair] = []
        while len(pairs) < count:
            own, other = (matrices[place] for place in self.rng.choice(len(matrices), 2, replace=False))
            shares = (0.0, 0.25, 0.75)
            texts = [walk((1 - share) * own + share * other, 1, self.rng)[0] for share in shares]
            if len(set(texts)) == 3:
                pairs.append(rank_to_pair("", texts))
        return Triples.of(pairs)


def trained(model: Discriminator, data: Triples, steps: int, size: Size, key: tuple[int, str]) -> None:
    """Bradley-Terry on triples, in place."""
    generator = keyed_generator(*key)
    optimiser = torch.optim.AdamW(model.parameters(), lr=size.lr, weight_decay=1e-2)
    for _ in range(steps):
        rows = torch.randint(len(data.reference), (min(size.batch, len(data.reference)),), generator=generator)
        batch = Triples(data.reference[rows], data.better[rows], data.worse[rows])
        loss = bradley_terry(*batch.gap(model))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


def tuned(model: Discriminator, data: Triples, validation: Triples, size: Size, key: tuple[int, str]) -> Discriminator:
    """A fine-tuned copy, as it was at the best of eleven looks at validation triples, before the first step included.

    Every arm is stopped so, the one that begins from nothing too: none is judged over- or under-trained.
    """
    model = copy.deepcopy(model)
    best, kept = validation.accuracy(model), copy.deepcopy(model)
    for look in range(10):
        trained(model, data, size.tuning // 10, size, (key[0], f"{key[1]} {look}"))
        found = validation.accuracy(model)
        if found > best:
            best, kept = found, copy.deepcopy(model)
    return kept


def cosine(reference: Tensor, candidate: Tensor) -> Tensor:
    """Of transition counts [N, 100]."""
    return torch.cosine_similarity(reference, candidate, dim=-1)


def symbol_cosine(reference: Tensor, candidate: Tensor) -> Tensor:
    """Of symbol counts."""
    one, other = (side.view(-1, SYMBOLS, SYMBOLS).sum(2) for side in (reference, candidate))
    return torch.cosine_similarity(one, other, dim=-1)


def fresh(size: Size, seed: int, blind: bool = False) -> Discriminator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Discriminator(size.width, blind)


def judged(size: Size, seed: int, skewed: bool = False) -> tuple[dict[str, dict[str, float]], Discriminator, World]:
    """The measures of every arm of part 1 in one world, and the pre-trained and fine-tuned model."""
    world = World(size, seed, skewed)
    pool, _ = world.sampled("pool", size.triples)
    test = world.ranked("test", size.tested)
    unseen, policies = world.sampled("test", size.tested)

    def measured(model: Callable[[Tensor, Tensor], Tensor]) -> dict[str, float]:
        with torch.no_grad():
            own, other = (side.numpy() for side in unseen.gap(model))
        apart = policy_discrimination(own, other, policies, trained_on=world.room("pool"), resamples=1)
        return {"ranked": test.accuracy(model), "discrimination": apart.accuracy.value}

    pretrained, misled = fresh(size, seed), fresh(size, seed)
    trained(pretrained, pool, size.pretraining, size, (seed, "pre-training"))
    wrong = pool.shuffled("better", keyed_generator(seed, "positives"))
    trained(misled, wrong, size.pretraining, size, (seed, "pre-training"))
    measures = {
        "pre-trained only": measured(pretrained),
        "cosine of symbols": measured(symbol_cosine),
        "cosine of transitions": measured(cosine),
    }
    starts = {
        "pre-trained + fine-tuned": pretrained,
        "fine-tuned only": fresh(size, seed),
        "shuffled positives + fine-tuned": misled,
        "fine-tuned, no reference": fresh(size, seed, blind=True),
    }
    drawn = [(world.ranked("ranked", size.ranked), world.ranked("ranked", size.validated)) for _ in range(size.draws)]
    for name, start in starts.items():
        models = [tuned(start, *data, size, (seed, f"tuning {draw}")) for draw, data in enumerate(drawn)]
        rows = [measured(model) for model in models]
        measures[name] = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        if start is pretrained:
            both = models[0]
    crossed = test.shuffled("reference", keyed_generator(seed, "references"))
    measures["shuffled references"] = {"ranked": crossed.accuracy(both)}
    return measures, both, world


def climb(model: Discriminator, world: World, permuted: bool, size: Size, seed: int) -> dict[str, float]:
    """Optimise a chain by GRPO towards references of an unseen policy; the gain in reward and in nats of distance.

    permuted: the references are of a random policy of the test room each. Reward is always measured against references
    of the target, in standard deviations of the untrained policy's rewards.
    """
    rng = np.random.default_rng([seed, 7])
    matrices = list(world.room("test").values())
    target = torch.from_numpy(matrices[0]).float()
    logits = torch.zeros(SYMBOLS, SYMBOLS, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.05)
    held = bigrams(walk(matrices[0], 64, rng))

    @torch.no_grad()
    def measured() -> tuple[Tensor, float]:
        policy = logits.softmax(1)
        texts = walk(policy.double().numpy(), 512, np.random.default_rng([seed, 8]))
        rewards = model(held.repeat(8, 1), bigrams(texts))
        distance = (policy * (policy.log() - target.log())).sum(1).mean()
        return rewards, float(distance)

    before, far = measured()
    for _ in range(size.updates):
        asked = [matrices[place] for place in rng.integers(len(matrices), size=size.references)]
        asked = asked if permuted else [matrices[0]] * size.references
        references = bigrams([walk(matrix, 1, rng)[0] for matrix in asked]).repeat_interleave(size.group, 0)
        with torch.no_grad():
            counts = bigrams(walk(logits.softmax(1).double().numpy(), len(references), rng))
            rewards = model(references, counts)
        groups = torch.arange(size.references).repeat_interleave(size.group)
        advantage = group_advantages(rewards, groups)
        log_prob = STEPS * (counts * logits.log_softmax(1).flatten()).sum(1)
        loss = -(advantage * log_prob).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    after, near = measured()
    return {"reward gain": float((after.mean() - before.mean()) / before.std()), "KL drop": far - near, "KL": near}


def run(
    seeds: Sequence[int] = (11, 12, 13), progress: ProgressBar = default_progress, size: Size | None = None
) -> ClaimResult:
    """Run both parts for each seed; about a minute a seed on one slow core.

    The effect is the accuracy on ranked triples of unseen policies, pre-trained + fine-tuned less fine-tuned only.
    """
    size, started = size or Size(), time.monotonic()
    arms: dict[str, Arm] = {}
    limit: dict[str, Arm] = {}
    policies = {name: Arm(name) for name in ("towards references", "permuted references")}
    with progress(4 * len(seeds), "claim polar") as bar:
        for seed in seeds:
            for skewed, table in ((False, arms), (True, limit)):
                measures, model, world = judged(size, seed, skewed)
                for name, values in measures.items():
                    table.setdefault(name, Arm(name)).add(values)
                if not skewed:
                    kept = model, world
                bar.advance(seed=seed, arm="skewed" if skewed else "uniform")
            for name, arm in policies.items():
                arm.add(climb(*kept, permuted=name.startswith("permuted"), size=size, seed=seed))
                bar.advance(seed=seed, arm=name)
    return _result(list(seeds), arms, limit, policies, time.monotonic() - started)


def _result(
    seeds: list[int], arms: dict[str, Arm], limit: dict[str, Arm], policies: dict[str, Arm], seconds: float
) -> ClaimResult:
    full, few = arms["pre-trained + fine-tuned"], arms["fine-tuned only"]
    misled = arms["shuffled positives + fine-tuned"]
    gain, shown = difference(full, few, "ranked"), difference(misled, few, "ranked")
    towards, permuted = policies["towards references"], policies["permuted references"]

    def chance(name: str) -> Check:
        off = abs(arms[name].values("ranked") - 0.5)
        return below(f"{name}: ranked accuracy is at chance", effect_of(off), 0.05)

    checks = [
        above("policies that no training saw are told apart",
              effect_of(arms["pre-trained only"].values("discrimination")), 0.75),
        above("pre-training adds to fine-tuning on few ranked triples", gain),
        control_fails("pre-training on shuffled positives does not", gain, shown, difference(full, misled, "ranked")),
        above("it beats the cosine of symbols", difference(full, arms["cosine of symbols"], "ranked")),
        chance("shuffled references"),
        chance("fine-tuned, no reference"),
    ]  # fmt: skip
    for measure, name in (("reward gain", "earns more"), ("KL drop", "comes closer to the references' policy")):
        moved, still = effect_of(towards.values(measure)), effect_of(permuted.values(measure))
        checks.append(above(f"a policy trained towards references {name}", moved))
        checks.append(
            control_fails(
                f"{measure}: not by permuted references", moved, still, difference(towards, permuted, measure)
            )
        )
    names = ["ranked", "discrimination"]
    sections = [
        arms_section("symbols equally frequent (accuracy on unseen policies)", list(arms.values()), names),
        arms_section("symbol frequencies differ: the limit of the claim", list(limit.values()), names),
        arms_section("a policy trained on references", list(policies.values()), ["reward gain", "KL drop", "KL"]),
    ]  # fmt: skip
    edge = difference(limit["pre-trained + fine-tuned"], limit["cosine of symbols"], "ranked")
    known = difference(full, arms["cosine of transitions"], "ranked")
    notes = [
        f"where policies differ in symbol frequencies, it exceeds the cosine of symbols by {edge}",
        f"it exceeds the cosine of transition counts, which is told where to look, by {known}",
        f"fine-tuning after pre-training adds {difference(full, arms['pre-trained only'], 'ranked')}",
    ]
    return ClaimResult(
        SLUG, CLAIM, "ranked accuracy, pre-trained + fine-tuned less fine-tuned only", gain, shown.value, checks,
        [*arms.values(), *policies.values()], seeds, seconds, sections, notes,
    )  # fmt: skip


__all__ = ["CLAIM", "SLUG", "TITLE", "Size", "run"]
