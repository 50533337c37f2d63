"""MRMBench (arXiv 2511.12464): probes tell what a reward model's states hold, distances which rewards to trust.

Three parts, as in the system's card. (1) Six attributes are planted in a Gaussian state with known strengths, one not
at all and with most examples in one class: the probe's accuracy must follow the strength, and of the absent one say no
more than its most frequent label does. Control: shuffled labels. (2) In the same world a linear reward reads the state;
of a share of the queries the states are thrown off the manifold, and the reward with them. Distances to the centroids
of inference-time probing gate the samples that train a policy by group-relative gradients. Control: as many samples
dropped at random; and a world without such queries, where there is nothing to gain. (3) A small transformer is trained
by Bradley-Terry on answers of which only the manner decides: the probe of manner must rise, that of padding must not.
Control: labels by chance.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from guerdon.claims.experiment import (
    Arm,
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
from guerdon.core.dialogues import ASKING, COURTEOUS, PADDING, RUDE, USES
from guerdon.core.preferences import Message, Pair
from guerdon.core.progress import progress as default_progress
from guerdon.metrics.class_scores import class_scores
from guerdon.models.probe import InferenceTimeProbe, LinearProbe
from guerdon.models.representation import RepresentationReader
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tiny import tiny_backbone
from guerdon.objectives.advantages import group_advantages
from guerdon.trainers.preference import PreferenceConfig, RewardModelTrainer

SLUG = "mrmbench"
TITLE = "Probing Preference Representations: A Multi-Dimensional Evaluation and Analysis Method for Reward Models"
CLAIM = (
    "the accuracy of a linear probe follows how strongly a reward model's states hold a dimension of preference, and "
    "rewards of states near the probed centroids train a better policy than as many rewards at random"
)
Floats = NDArray[np.float64]
Gate = tuple[InferenceTimeProbe, float]

STRENGTHS = (3.0, 3.0, 2.0, 1.0, 0.4, 0.0)
"""Of the planted attributes; the last is absent, and 90% of its examples have one label."""
NAMES = ("3", "3 (second)", "2", "1", "0.4", "absent")
GATES = ("all rewards", "near ones", "as many at random")
TRAININGS = ("manner decides", "chance decides")


@dataclass(frozen=True)
class Size:
    """How large the experiment is.

    odd: share of queries whose states are thrown off; throw: by how much, in units of the states' own noise. kept:
    share of the samples that the gate lets through at the start. k: centroids a label.
    """

    width: int = 128
    train: int = 3000
    test: int = 1000
    odd: float = 0.4
    throw: float = 2.0
    kept: float = 0.65
    k: int = 3
    queries: int = 40
    group: int = 8
    updates: int = 40
    rate: float = 0.05
    judged: int = 4000
    texts: int = 400
    pairs: int = 400
    steps: int = 80
    hidden: int = 32


# States with planted attributes


class World:
    """States h = sum_i strength_i z_i u_i + noise of six attributes z, and a reward that is a weighted sum of them."""

    def __init__(self, size: Size, seed: int) -> None:
        rng = np.random.default_rng([seed, 0])
        self.size = size
        self.directions = np.linalg.qr(rng.standard_normal((size.width, len(STRENGTHS))))[0].T
        self.weights = np.array([1.0, -1.0, 1.0, 0.5, 0.0, 0.0])
        states, attributes = self.drawn(size.train, rng)
        # The reward model's head: least squares of the true reward on the states.
        self.head = np.linalg.lstsq(states, attributes @ self.weights, rcond=None)[0]

    def drawn(self, count: int, rng: np.random.Generator, attributes: Floats | None = None) -> tuple[Floats, Floats]:
        """(states [N, d], attributes [N, 6])."""
        z = rng.standard_normal((count, len(STRENGTHS))) if attributes is None else attributes
        noise = rng.standard_normal((count, self.size.width))
        return (z * np.array(STRENGTHS)) @ self.directions + noise, z

    def thrown(self, states: Floats, rows: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
        """The states with noise of ``throw`` times their own added in ``rows``."""
        return states + self.size.throw * rng.standard_normal(states.shape) * rows[:, None]

    @staticmethod
    def labels(attributes: Floats) -> NDArray[np.int64]:
        """Two labels of each attribute [N, 6]: above or below 0; of the last nine of ten are 1."""
        cuts = np.array([0.0] * (len(STRENGTHS) - 1) + [-1.2816])
        return (attributes > cuts).astype(np.int64)


def probed(world: World, rng: np.random.Generator, shuffled: bool = False) -> dict[str, float]:
    """Accuracy and balanced accuracy of the converged probe of each attribute, and the most frequent label's share."""
    states, attributes = world.drawn(world.size.train, rng)
    test, known = world.drawn(world.size.test, rng)
    labels, truth = world.labels(attributes), world.labels(known)
    found: dict[str, float] = {}
    for place, name in enumerate(NAMES):
        given = rng.permutation(labels[:, place]) if shuffled else labels[:, place]
        said = LinearProbe(2).fit(states, given).predict(test)
        scores = class_scores(truth[:, place], said, 2, training_labels=labels[:, place], resamples=1)
        found |= {name: scores.acc.value, f"{name}, balanced": scores.balanced_acc}
        found[f"{name}, over majority"] = scores.acc.value - scores.majority_acc
    return found


# Rewards that are trusted near what is known


def gate_of(world: World, odd: float, rng: np.random.Generator) -> Gate:
    """An inference-time probe of labelled examples, and the distance within which ``kept`` of fresh queries lie."""
    states, attributes = world.drawn(world.size.train, rng)
    labels = world.labels(attributes)
    probe = InferenceTimeProbe(world.size.k, seed=0)
    probe.fit(states, {name: labels[:, place] for place, name in enumerate(NAMES)})
    fresh, _ = world.drawn(world.size.train, rng)
    probe.calibrate(world.thrown(fresh, rng.random(len(fresh)) < odd, rng))
    return probe, probe.threshold(world.size.kept)


def trusted(world: World, gate: Gate, rng: np.random.Generator) -> dict[str, float]:
    """How d_min goes with the reward's error; how rewards go with the truth: all, kept, dropped, kept at random."""
    probe, tau = gate
    states, attributes = world.drawn(world.size.judged, rng)
    states = world.thrown(states, rng.random(len(states)) < world.size.odd, rng)
    reward, truth = states @ world.head, attributes @ world.weights
    near = probe.nearest(states)
    kept = near <= tau
    error = np.abs(reward - truth)
    chance = rng.permutation(kept)

    def correlation(rows: NDArray[np.bool_]) -> float:
        return float(np.corrcoef(reward[rows], truth[rows])[0, 1])

    return {
        "distance and error": float(spearmanr(near, error).statistic), "kept": float(kept.mean()),
        "all": correlation(np.ones_like(kept)), "near": correlation(kept), "far": correlation(~kept),
        "at random": correlation(chance),
    }  # fmt: skip


def climbed(rule: str, world: World, gate: Gate, odd: float, seed: int) -> dict[str, float]:
    """True reward of a policy trained by the gated rewards, in units of its deviation at the start.

    The policy draws answers whose attributes are theta plus unit noise; a group of answers to a query gets
    group-relative advantages, from which masked samples are left out, and theta goes up their policy gradient.
    """
    size, rng = world.size, np.random.default_rng([seed, 3])
    probe, tau = gate
    theta = np.zeros(len(STRENGTHS))
    groups = torch.arange(size.queries).repeat_interleave(size.group)
    for _ in range(size.updates):
        step = rng.standard_normal((size.queries * size.group, len(STRENGTHS)))
        states, _ = world.drawn(len(step), rng, theta + step)
        off = np.repeat(rng.random(size.queries) < odd, size.group)
        states = world.thrown(states, off, rng)
        kept = probe.gate(states, tau=tau)
        chance = rng.permutation(kept)  # drawn in every arm, so that all arms see the same world
        valid = {"all rewards": np.ones_like(kept), "near ones": kept, "as many at random": chance}[rule]
        advantage = group_advantages(torch.from_numpy(states @ world.head), groups, valid=torch.from_numpy(valid))
        # The mean is over what trains, as in a masked loss: to drop samples is not to take smaller steps.
        theta = theta + size.rate * (advantage.double().numpy()[:, None] * step).sum(0) / max(1, valid.sum())
    return {"true reward": float(theta @ world.weights / np.linalg.norm(world.weights))}


# A reward model before and after training


def answered(thing: str, manner: Sequence[str], padded: bool, rng: np.random.Generator) -> list[Message]:
    """An answer about ``thing`` of a manner, with two sentences of padding or none, right in half of the cases."""
    uses = list(USES.values())
    use = USES[thing] if rng.random() < 0.5 else uses[rng.integers(len(uses))]
    more = [PADDING[place] for place in rng.permutation(len(PADDING))[: 2 * padded]]
    text = " ".join([manner[int(rng.integers(len(manner)))], f"{thing.capitalize()} is for {use}.", *more])
    return [{"role": "assistant", "content": text}]


def talks(count: int, rng: np.random.Generator) -> tuple[list[list[Message]], NDArray[np.int64]]:
    """(conversations, labels [N, 2] of manner and padding), drawn independently."""
    labels = rng.integers(2, size=(count, 2))
    made = []
    for manner, padded in labels:
        thing = list(USES)[rng.integers(len(USES))]
        asked = [{"role": "user", "content": ASKING[rng.integers(len(ASKING))].format(thing)}]
        made.append([*asked, *answered(thing, COURTEOUS if manner else RUDE, bool(padded), rng)])
    return made, labels


def manner_pairs(count: int, chance: bool, rng: np.random.Generator) -> list[Pair]:
    """Courteous chosen over rude; by ``chance`` half of the labels are turned round."""
    pairs = []
    for row in range(count):
        thing = list(USES)[rng.integers(len(USES))]
        prompt = [{"role": "user", "content": ASKING[rng.integers(len(ASKING))].format(thing)}]
        sides = [answered(thing, manner, bool(rng.integers(2)), rng) for manner in (COURTEOUS, RUDE)]
        turned = chance and rng.random() < 0.5
        pairs.append(Pair(prompt, sides[turned], sides[not turned], where=f"manner:{row}"))
    return pairs


def before_and_after(training: str, size: Size, seed: int) -> dict[str, float]:
    """How far the probes of manner and padding rise by training, and how they stand after it."""
    rng = np.random.default_rng([seed, 4])
    (known, labels), (fresh, truth) = talks(size.texts, rng), talks(size.texts, rng)
    pairs = manner_pairs(size.pairs, training == "chance decides", rng)
    words = [message["content"] for talk in [*known, *fresh] for message in talk]
    backbone, tokenizer = tiny_backbone(words, hidden=size.hidden, vocab=600, seed=seed)
    model = ScalarRewardModel.on_backbone(backbone, tokenizer=tokenizer, seed=seed)

    def accuracies() -> Floats:
        reader = RepresentationReader(model, template=True)
        states, tests = reader(known).states, reader(fresh).states
        return np.array(
            [(LinearProbe(2).fit(states, labels[:, d]).predict(tests) == truth[:, d]).mean() for d in range(2)]
        )

    before = accuracies()
    settings = PreferenceConfig(steps=size.steps, batch_size=32, learning_rate=2e-3, seed=seed)
    RewardModelTrainer(model, pairs, settings).train()
    after = accuracies()
    rise = after - before
    return {"manner before": before[0], "manner after": after[0], "manner rise": rise[0],
            "padding before": before[1], "padding after": after[1], "padding rise": rise[1]}  # fmt: skip


def run(
    seeds: Sequence[int] = (11, 12, 13), progress: ProgressBar = default_progress, size: Size | None = None
) -> ClaimResult:
    """Run all three parts for each seed; some twenty seconds a seed on one slow core.

    The effect is the true reward of the policy trained on near rewards less that of the one trained on all.
    """
    size, started = size or Size(), time.monotonic()
    probes, trust = {name: Arm(name) for name in ("labels", "shuffled labels")}, Arm("rewards and distance")
    gates = {name: Arm(name) for name in GATES}
    calm = {name: Arm(f"{name}, no odd queries") for name in GATES}
    trainings = {name: Arm(name) for name in TRAININGS}
    with progress(len(seeds) * (3 + 2 * len(GATES) + len(TRAININGS)), "claim mrmbench") as bar:
        for seed in seeds:
            world = World(size, seed)
            for name, arm in probes.items():
                arm.add(probed(world, np.random.default_rng([seed, 1]), shuffled=name != "labels"))
                bar.advance(seed=seed, arm=name)
            for odd, arms in ((size.odd, gates), (0.0, calm)):
                gate = gate_of(world, odd, np.random.default_rng([seed, 5, int(odd > 0)]))
                if odd:
                    trust.add(trusted(world, gate, np.random.default_rng([seed, 2])))
                    bar.advance(seed=seed, arm=trust.name)
                for name, arm in arms.items():
                    arm.add(climbed(name, world, gate, odd, seed))
                    bar.advance(seed=seed, arm=arm.name, reward=arm.measures["true reward"][-1])
            for name, arm in trainings.items():
                arm.add(before_and_after(name, size, seed))
                bar.advance(seed=seed, arm=name, rise=arm.measures["manner rise"][-1])
    return _result(list(seeds), probes, trust, gates, calm, trainings, time.monotonic() - started)


def _result(
    seeds: list[int], probes: dict[str, Arm], trust: Arm, gates: dict[str, Arm], calm: dict[str, Arm],
    trainings: dict[str, Arm], seconds: float,
) -> ClaimResult:  # fmt: skip
    real, shuffled = probes["labels"], probes["shuffled labels"]
    everything, near, chance = (gates[name] for name in GATES)
    gain, control = difference(near, everything, "true reward"), difference(chance, everything, "true reward")
    taught, random = (trainings[name] for name in TRAININGS)

    def step(stronger: str, weaker: str) -> np.ndarray:
        return real.values(f"{stronger}, balanced") - real.values(f"{weaker}, balanced")

    order = ("3", "2", "1", "0.4", "absent")
    checks = [
        *(
            above(f"probe: strength {one} above {other}", effect_of(step(one, other)))
            for one, other in zip(order, order[1:])
        ),
        below("of the absent one it says no more than its most frequent label",
              effect_of(np.abs(real.values("absent, over majority"))), 0.02),
        below("nor by balanced accuracy", effect_of(np.abs(real.values("absent, balanced") - 0.5)), 0.03),
        below("shuffled labels leave nothing of any",
              effect_of(np.abs(np.mean([shuffled.values(f"{name}, balanced") for name in NAMES], axis=0) - 0.5)), 0.1),
        above("distances go with the error of the reward", effect_of(trust.values("distance and error")), 0.1),
        above("near rewards go with the truth more than random ones",
              effect_of(trust.values("near") - trust.values("at random"))),
        above("a policy on near rewards beats one on all", gain),
        control_fails("as many at random do not", gain, control, difference(near, chance, "true reward")),
        below("without odd queries there is nothing to gain",
              difference(calm["near ones"], calm["all rewards"], "true reward"), 0.5 * max(gain.value, 0.0)),
        above("training on manner raises the probe of manner", effect_of(taught.values("manner rise"))),
        below("and not that of padding", effect_of(taught.values("padding rise")), 0.02),
        above("labels by chance raise it less", difference(taught, random, "manner rise")),
    ]  # fmt: skip
    named = [*(f"{name}, balanced" for name in order), "absent", "absent, over majority"]
    sections = [
        arms_section("probes of planted attributes, by strength", list(probes.values()), named),
        arms_section("correlation of the reward with the truth", [trust], list(trust.measures)),
        arms_section("policies", [*gates.values(), *calm.values()], ["true reward"]),
        arms_section("a small reward model before and after training", list(trainings.values()), list(taught.measures)),
    ]
    return ClaimResult(
        SLUG, CLAIM, "true reward of the policy, near rewards less all", gain, control.value, checks,
        [*probes.values(), trust, *gates.values(), *calm.values(), *trainings.values()], seeds, seconds, sections,
        _notes(real, taught, calm),
    )  # fmt: skip


def _notes(real: Arm, taught: Arm, calm: dict[str, Arm]) -> list[str]:
    alone = difference(calm["near ones"], calm["as many at random"], "true reward")
    return [
        f"the absent attribute has an accuracy of {real.mean('absent'):.2f} all the same, by its most frequent label: "
        "an accuracy without the majority rate and balanced accuracy beside it says nothing",
        f"where no query is odd the gate costs more than dropping as many at random ({alone}): what lies near known "
        "centroids is what is like everything else, and a policy that climbs leaves it",
        "what throws states off here throws the reward off with them; distances cannot see a reward that errs on "
        "states that look familiar",
        f"the probe of manner stands at {taught.mean('manner before'):.2f} before any training: a linear probe of a "
        "random transformer is no zero",
    ]


__all__ = ["CLAIM", "SLUG", "TITLE", "Section", "Size", "run"]
