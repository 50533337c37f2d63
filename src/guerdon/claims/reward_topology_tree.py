"""The claim of reward topology: pairs of answers that share prefixes train a better reward model than independent ones.

Answers are sequences of six symbols, rewarded by symbols, neighbouring symbols and, with size tau, by their own prefixes
of two and four symbols, at which trees branch. (1) Where an annotator errs in proportion to what it has to read (the
suffixes), trees must beat independent answers ("chain") at equal annotated tokens. (2) Where it errs alike on all pairs,
they must not, and siblings alone must be worse. (3) The theory's hop count, the network's distances on one set of answers,
and its limit: an exact learner that may ask about any answer learns more from independent pairs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
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
from guerdon.core.preferences import Pair, text_of
from guerdon.core.progress import progress as default_progress
from guerdon.curation.trees import Compared, Prefix, PrefixTree, Rule, budget_match, chain_pairs, tree_pairs
from guerdon.metrics.pair_accuracy import pair_accuracy
from guerdon.metrics.preference_graph import IBN, random_graph_hops
from guerdon.objectives.preference import bradley_terry
from guerdon.policies.rollout import keyed_generator

SLUG = "reward-topology-tree"
TITLE = "Reward Generalization in RLHF: A Topological Perspective"
CLAIM = (
    "at equal annotated tokens, pairs of answers that share prefixes train a better reward model than pairs of "
    "independent answers where comparing what differs is what makes annotation noisy, and not where it is not"
)

SYMBOLS = "abcdefghijkl"
LENGTH, CUTS = 6, (2, 4)
Noise = Literal["by suffix", "constant"]
ARMS = ("chain", "tree", "tree, constant noise", "siblings, constant noise")


@dataclass(frozen=True)
class Size:
    """How large the experiment is: symbols, lengths, trees, temperature, tau and n are the card's.

    tau: deviation of the effect that each prefix of two or four symbols has beyond its symbols. counts: chain's pairs.
    replicates: worlds a seed, each with its own data and model, averaged. width, steps, lr, decay: chosen by the
    accuracy of the chain arm alone, on seeds that are not among the claim's. candidates: of best-of-n.
    """

    tau: tuple[float, ...] = (0.0, 1.5)
    counts: tuple[int, ...] = (250, 500)
    replicates: int = 16
    temperature: float = 4.0
    branch: int = 2
    pairs_a_tree: int = 8
    width: int = 24
    steps: int = 120
    lr: float = 1e-2
    decay: float = 0.1
    tested: int = 2000
    candidates: int = 64
    prompts: int = 60
    nodes: int = 10_000
    theory: int = 60


class World:
    """A true reward: N(0, 1) weights of 12 symbols and of 144 neighbours, and tau N(0, 1) for each prefix at a cut."""

    def __init__(self, tau: float, *key: int | str) -> None:
        source = keyed_generator(*key, "world")
        size = len(SYMBOLS)
        self.single, self.double = torch.randn(size, generator=source), torch.randn(size, size, generator=source)
        self.prefixes = [tau * torch.randn(size**cut, generator=source) for cut in CUTS]

    def reward(self, answers: Tensor) -> Tensor:
        """Reward [N] of symbol numbers [N, 6]."""
        found = self.single[answers].sum(1) + self.double[answers[:, :-1], answers[:, 1:]].sum(1)
        for cut, effects in zip(CUTS, self.prefixes):
            place = torch.zeros_like(answers[:, 0])
            for symbol in answers[:, :cut].T:
                place = place * len(SYMBOLS) + symbol
            found = found + effects[place]
        return found


def coded(texts: Sequence[str]) -> Tensor:
    """Symbol numbers [N, 6] of texts."""
    return torch.tensor([[SYMBOLS.index(symbol) for symbol in text] for text in texts])


class Writer:
    """A policy without opinions: every symbol equally likely. Continues prefixes to the next cut, or writes answers."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def _symbols(self, count: int) -> str:
        return "".join(SYMBOLS[place] for place in self.rng.integers(len(SYMBOLS), size=count))

    def grow(self, prompt: str, prefixes: Sequence[Prefix], n: int, last: bool) -> list[list[Prefix]]:
        step = LENGTH // (len(CUTS) + 1)
        return [[Prefix(prefix.text + self._symbols(step), ended=last) for _ in range(n)] for prefix in prefixes]

    def answers(self, prompts: Sequence[str], seed: int) -> list[str]:
        return [self._symbols(LENGTH) for _ in prompts]


def annotator(world: World, noise: Noise, size: Size, rng: np.random.Generator):  # type: ignore[no-untyped-def]
    """Prefers by Bradley-Terry, at a temperature in proportion to what differs or the same for every pair."""

    def annotate(prompt: str, shared: str, a: str, b: str) -> str:
        first, second = world.reward(coded([shared + a, shared + b])).tolist()
        share = len(a) / LENGTH if noise == "by suffix" else 1.0
        return "a" if rng.random() < 1 / (1 + math.exp((second - first) / (size.temperature * share))) else "b"

    return annotate


def chain_set(world: World, count: int, size: Size, rng: np.random.Generator) -> list[Pair]:
    """``count`` pairs of independent answers, which share nothing: both kinds of noise are the same here."""
    annotate = annotator(world, "constant", size, rng)
    return chain_pairs("chain", Writer(rng).answers, count, annotate=annotate).pairs


def tree_set(world: World, count: int, noise: Noise, rule: Rule, size: Size, rng: np.random.Generator) -> Compared:
    """At least ``count`` pairs, ``pairs_a_tree`` (fewer siblings) from each tree of depth 3."""
    found, annotate = Compared(), annotator(world, noise, size, rng)
    while len(found.pairs) < count:
        tree = PrefixTree(f"tree {len(found.pairs)}").grow(len(CUTS) + 1, size.branch, Writer(rng).grow)
        found.extend(tree_pairs(tree, size.pairs_a_tree, rule, annotate=annotate, seed=int(rng.integers(2**31))))
    return found


def data_of(arm: str, world: World, count: int, size: Size, key: tuple[int | str, ...]) -> list[Pair]:
    """The pairs of an arm. "tree" may spend chain's tokens; the controls have as many pairs as chain."""
    # The chain set, whose tokens are the budget, is the same whichever arm asks.
    rng, own = (np.random.default_rng(keyed_generator(*key, name).initial_seed()) for name in ("chain", arm))
    chain = chain_set(world, count, size, rng)
    if arm == "chain":
        return chain
    if arm == "tree":
        made = tree_set(world, 2 * count, "by suffix", "uniform", size, own).pairs
        return budget_match(made, chain, by="annotated_tokens", count=len)[0]
    made = tree_set(world, count, "constant", "sibling" if arm.startswith("siblings") else "uniform", size, own).pairs
    return budget_match(made, chain, by="pairs")[0]


class RecurrentRewards(torch.nn.Module):
    """R reward models side by side, each a gated recurrent unit over symbols and a linear head: [R, N, 6] -> [R, N]."""

    def __init__(self, copies: int, width: int, generator: torch.Generator) -> None:
        super().__init__()

        def weights(*shape: int, scale: float) -> torch.nn.Parameter:
            return torch.nn.Parameter(scale * torch.randn(copies, *shape, generator=generator))

        scale = width**-0.5
        self.given, self.kept = weights(len(SYMBOLS), 3 * width, scale=0.5), weights(width, 3 * width, scale=scale)
        self.head = weights(width, 1, scale=scale)

    def forward(self, answers: Tensor) -> Tensor:
        rows = torch.arange(len(answers))[:, None]
        state = torch.zeros(*answers.shape[:2], self.head.shape[1])
        for symbol in answers.unbind(-1):
            new, carried = self.given[rows, symbol].chunk(3, -1), torch.bmm(state, self.kept).chunk(3, -1)
            reset, update = torch.sigmoid(new[0] + carried[0]), torch.sigmoid(new[1] + carried[1])
            state = torch.lerp(torch.tanh(new[2] + reset * carried[2]), state, update)
        return torch.bmm(state, self.head)[..., 0]


def train(sets: Sequence[Sequence[Pair]], size: Size, generator: torch.Generator) -> RecurrentRewards:
    """A model for each set, full batches of Adam with decoupled decay."""
    longest = max(len(pairs) for pairs in sets)
    sides = torch.zeros(2, len(sets), longest, LENGTH, dtype=torch.long)
    weight = torch.zeros(len(sets), longest)
    for place, pairs in enumerate(sets):
        weight[place, : len(pairs)] = 1 / len(pairs)
        sides[0, place, : len(pairs)] = coded([text_of(pair.chosen) for pair in pairs])
        sides[1, place, : len(pairs)] = coded([text_of(pair.rejected) for pair in pairs])
    model = RecurrentRewards(len(sets), size.width, generator)
    optimiser = torch.optim.AdamW(model.parameters(), lr=size.lr, weight_decay=size.decay)
    both = torch.cat([sides[0], sides[1]], dim=1)
    for _ in range(size.steps):
        chosen, rejected = model(both).chunk(2, dim=1)
        optimiser.zero_grad(set_to_none=True)
        bradley_terry(chosen, rejected, weight=weight).backward()
        optimiser.step()
    return model.requires_grad_(False)


def measured(model: RecurrentRewards, worlds: Sequence[World], size: Size, key: tuple[int | str, ...]) -> dict:
    """Accuracy on fresh independent answers in their true order, and the true reward of best-of-n in deviations."""
    source, symbols = keyed_generator(*key, "test"), len(SYMBOLS)
    pairs = torch.randint(symbols, (len(worlds), 2 * size.tested, LENGTH), generator=source)
    many = torch.randint(symbols, (len(worlds), size.prompts * size.candidates, LENGTH), generator=source)
    scored, picked = model(pairs), model(many).view(len(worlds), size.prompts, -1).argmax(-1)
    accuracy, best = [], []
    for place, world in enumerate(worlds):
        truth, said = world.reward(pairs[place]).chunk(2), scored[place].chunk(2)
        wins = truth[0] > truth[1]
        accuracy.append(pair_accuracy(torch.where(wins, said[0], said[1]), torch.where(wins, said[1], said[0])))
        true = world.reward(many[place])
        true = ((true - true.mean()) / true.std()).view(size.prompts, -1)
        best.append(float(true.gather(1, picked[place][:, None]).mean()))
    return {"accuracy": float(np.mean(accuracy)), "best of n": float(np.mean(best))}
