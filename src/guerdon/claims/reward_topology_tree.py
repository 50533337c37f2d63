"""The claim of reward topology: pairs of answers that share prefixes train a better reward model than independent ones.

Answers are sequences of six symbols, rewarded by symbols, neighbouring symbols and, with size tau, by their prefixes of
two and four symbols, at which trees branch. (1) Where an annotator errs in proportion to what it has to read (the
suffixes), trees must beat independent answers ("chain") at equal annotated tokens. (2) Where it errs alike on all
pairs, they must not, and siblings alone must be worse. (3) The theory's hop count, the network's distances on one set
of answers, and a limit: an exact learner that may ask about any answer learns more from independent pairs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.special import expit
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
    effect_of,
)
from guerdon.core.preferences import Pair, text_of
from guerdon.core.progress import progress as default_progress
from guerdon.curation.trees import Annotator, Compared, Prefix, PrefixTree, Rule, budget_match, chain_pairs, tree_pairs
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
RULES: tuple[Rule, ...] = ("uniform", "sibling")
Noise = Literal["by suffix", "constant"]
ARMS = ("chain", "tree", "tree, constant noise", "siblings, constant noise")


@dataclass(frozen=True)
class Size:
    """How large the experiment is: symbols, lengths, trees, temperature, tau and n are the card's.

    tau: deviation of the effect that each prefix of two or four symbols has beyond its symbols. counts: chain's pairs.
    replicates: worlds a seed, each with its own data and model, averaged. width, lr, loose, decayed: two learners,
    (steps, decay): the first fits its labels' noise, as that of the figures the claim was made from, the second is
    the most accurate on chain's pairs, of those tried there on a seed that is not among the claim's. candidates: of
    best-of-n.
    """

    tau: tuple[float, ...] = (0.0, 1.5)
    counts: tuple[int, ...] = (250, 500)
    replicates: int = 10
    temperature: float = 4.0
    branch: int = 2
    pairs_a_tree: int = 8
    width: int = 24
    lr: float = 1e-2
    loose: tuple[int, float] = (60, 0.1)
    decayed: tuple[int, float] = (40, 10.0)
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
        self._known: dict[str, float] = {}
        self.prefixes = [tau * torch.randn(size**cut, generator=source) for cut in CUTS]

    def of(self, text: str) -> float:
        """`reward` of one text."""
        if text not in self._known:
            self._known[text] = float(self.reward(coded([text])))
        return self._known[text]

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


def annotator(world: World, noise: Noise, size: Size, rng: np.random.Generator) -> Annotator:
    """Prefers by Bradley-Terry, at a temperature in proportion to what differs or the same for every pair."""

    def annotate(prompt: str, shared: str, a: str, b: str) -> str:
        share = len(a) / LENGTH if noise == "by suffix" else 1.0
        gap = (world.of(shared + a) - world.of(shared + b)) / (size.temperature * share)
        return "a" if rng.random() < expit(gap) else "b"

    return annotate


def tree_set(world: World, count: int, noise: Noise, rule: Rule, size: Size, rng: np.random.Generator) -> Compared:
    """At least ``count`` pairs, ``pairs_a_tree`` (fewer siblings) from each tree of depth 3."""
    found, annotate = Compared(), annotator(world, noise, size, rng)
    while len(found.pairs) < count:
        tree = PrefixTree(f"tree {len(found.pairs)}").grow(len(CUTS) + 1, size.branch, Writer(rng).grow)
        found.extend(tree_pairs(tree, size.pairs_a_tree, rule, annotate=annotate, seed=int(rng.integers(2**31))))
    return found


def data_of(world: World, count: int, size: Size, key: tuple[int | str, ...]) -> dict[str, list[Pair]]:
    """The pairs of every arm: "tree" spends chain's annotated tokens, the controls have as many pairs as chain."""
    rng = np.random.default_rng(keyed_generator(*key, "data").initial_seed())
    # Independent answers share nothing: both kinds of noise are the same here.
    annotate = annotator(world, "constant", size, rng)
    chain = chain_pairs("chain", Writer(rng).answers, count, annotate=annotate).pairs
    # Half as many again: a tree's pairs cost four fifths of chain's.
    made = tree_set(world, 3 * count // 2, "by suffix", "uniform", size, rng).pairs
    sets = {"chain": chain, "tree": budget_match(made, chain, by="annotated_tokens", count=len)[0]}
    for arm, rule in zip(ARMS[2:], RULES):
        sets[arm] = budget_match(tree_set(world, count, "constant", rule, size, rng).pairs, chain, by="pairs")[0]
    return sets


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


def train(
    sets: Sequence[Sequence[Pair]], size: Size, learner: tuple[int, float], generator: torch.Generator
) -> RecurrentRewards:
    """A model for each set, full batches of Adam; ``learner`` is (steps, decoupled decay)."""
    steps, decay = learner
    longest = max(len(pairs) for pairs in sets)
    sides = torch.zeros(2, len(sets), longest, LENGTH, dtype=torch.long)
    weight = torch.zeros(len(sets), longest)
    for place, pairs in enumerate(sets):
        weight[place, : len(pairs)] = 1 / len(pairs)
        sides[0, place, : len(pairs)] = coded([text_of(pair.chosen) for pair in pairs])
        sides[1, place, : len(pairs)] = coded([text_of(pair.rejected) for pair in pairs])
    model = RecurrentRewards(len(sets), size.width, generator)
    optimiser = torch.optim.AdamW(model.parameters(), lr=size.lr, weight_decay=decay)
    both = torch.cat([sides[0], sides[1]], dim=1)
    for _ in range(steps):
        chosen, rejected = model(both).chunk(2, dim=1)
        optimiser.zero_grad(set_to_none=True)
        bradley_terry(chosen, rejected, weight=weight).backward()
        optimiser.step()
    return model.requires_grad_(False)


def measured(
    model: RecurrentRewards, worlds: Sequence[World], size: Size, key: tuple[int | str, ...]
) -> dict[str, float]:
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


def topology(tau: float, temperature: float, size: Size, seed: int) -> dict[str, dict[str, float]]:
    """Distances between answers of one set of trees, compared as trees are and in random pairs, as many of each.

    The edge model: a bias edge from each prefix to the next cut, whose variance is that of what the two symbols add to
    the reward; a comparison's variance is that of logistic noise, pi^2 / 3 times the square of its temperature.
    """
    rng = np.random.default_rng([seed, round(10 * temperature)])
    answers: list[str] = []
    inside: list[tuple[str, str, float]] = []
    for number in range(size.theory):
        tree = PrefixTree(f"tree {number}").grow(len(CUTS) + 1, size.branch, Writer(rng).grow)
        answers += [leaf.prefix.text for leaf in tree.leaves()]
        found = tree_pairs(tree, size.pairs_a_tree, annotate=lambda *texts: "a", seed=int(rng.integers(2**31)))
        for pair in found.pairs:
            share = 1 - pair.row["shared_prefix_chars"] / LENGTH
            inside.append((text_of(pair.chosen), text_of(pair.rejected), share))
    answers = list(dict.fromkeys(answers))

    def drawn(count: int) -> list[tuple[str, str]]:
        return [(answers[a], answers[b]) for a, b in (rng.choice(len(answers), 2, replace=False) for _ in range(count))]

    across = [(a, b, 1.0) for a, b in drawn(len(inside))]
    designs = {
        "no comparisons": [],
        "chain": across,
        "tree": inside,
        "tree, constant noise": [(a, b, 1.0) for a, b, _ in inside],
    }
    asked, made = drawn(300), {}
    for name, comparisons in designs.items():
        network, known = IBN(), set()
        for answer in answers:
            ways = [answer[:cut] for cut in (0, *CUTS, LENGTH)]
            for level, (shorter, longer) in enumerate(zip(ways, ways[1:])):
                if longer not in known:
                    known.add(longer)
                    # Two symbols and their neighbourhoods (one at the start), and an effect at each cut.
                    network.add_bias_edge(shorter, longer, (4 if level else 3) + tau**2 * (longer != answer))
        for a, b, share in comparisons:
            network.add_preference_edge(a, b, math.pi**2 / 3 * (temperature * share) ** 2)
        made[name] = {
            f"distance, T={temperature:g}": network.mean_inference_distance(asked),
            f"exact variance, T={temperature:g}": float(network.exact_posterior_variances(asked).mean()),
        }
    return made


def exact_learner(sampled: int, seed: int, *, levels: int = 4, branch: int = 4, count: int = 100) -> float:
    """Share of the variance of r(a) - r(b), over all answers, that an exact Bayesian learner is left with.

    A hierarchical Gaussian prior (variance 1 / ``levels`` an edge of the full tree) and ``count`` comparisons, with
    noise of deviation 0.2, between random answers of a tree of which ``sampled`` of ``branch`` children a node were
    sampled; with all of them sampled these are chain's.
    """
    rng = np.random.default_rng([seed, 4])
    network = IBN()
    full: list[tuple[int, ...]] = [()]
    kept: set[tuple[int, ...]] = {()}
    for _ in range(levels):
        grown: list[tuple[int, ...]] = []
        for node in full:
            chosen = set(rng.permutation(branch)[:sampled].tolist())
            for child in range(branch):
                network.add_bias_edge(node, (*node, child), 1 / levels)
                grown.append((*node, child))
                if node in kept and child in chosen:
                    kept.add((*node, child))
        full = grown
    visited = [leaf for leaf in full if leaf in kept]
    asked = [(full[a], full[b]) for a, b in (rng.choice(len(full), 2, replace=False) for _ in range(500))]
    before = network.exact_posterior_variances(asked).mean()
    for _ in range(count):
        a, b = rng.choice(len(visited), 2, replace=False)
        network.add_preference_edge(visited[a], visited[b], 0.2**2)
    return float(network.exact_posterior_variances(asked).mean() / before)


def run(
    seeds: Sequence[int] = (11, 12, 13), progress: ProgressBar = default_progress, size: Size | None = None
) -> ClaimResult:
    """Run every cell (tau, pairs) for each seed and both learners, then the theory; about a minute a seed on one core.

    The effect is the accuracy on fresh independent answers of the loose learner, tree less chain, over all cells.
    """
    size, started = size or Size(), time.monotonic()
    learners = {"loose": size.loose, "decayed": size.decayed}
    arms = {(learner, name): Arm(f"{name} ({learner})") for learner in learners for name in ARMS}
    theory = {name: Arm(name) for name in ("no comparisons", "chain", "tree", "tree, constant noise")}
    exact, hops = Arm("exact learner"), Arm("random graph")
    cells = [(tau, count) for tau in size.tau for count in size.counts]
    with progress(len(seeds) * (len(cells) + 1), "claim reward-topology-tree") as bar:
        for seed in seeds:
            found: dict[tuple[str, str], dict[str, float]] = {key: {} for key in arms}
            for tau, count in cells:
                worlds = [World(tau, seed, copy) for copy in range(size.replicates)]
                sets = [data_of(world, count, size, (seed, copy, count)) for copy, world in enumerate(worlds)]
                for learner, name in arms:
                    pairs, source = [each[name] for each in sets], keyed_generator(seed, "model", count)
                    model = train(pairs, size, learners[learner], source)
                    for measure, value in measured(model, worlds, size, (seed, count)).items():
                        found[learner, name][f"{measure}, tau={tau:g}, n={count}"] = value
                    found[learner, name][f"pairs, n={count}"] = float(np.mean([len(each) for each in pairs]))
                bar.advance(seed=seed, tau=tau, pairs=count)
            for key, values in found.items():
                for measure in ("accuracy", "best of n"):
                    cell = [value for name, value in values.items() if name.startswith(f"{measure}, ")]
                    values[measure] = float(np.mean(cell))
                arms[key].add(values)
            for temperature in (1.0, size.temperature):
                for name, values in topology(0.0, temperature, size, seed).items():
                    theory[name].add(values)
            exact.add({"chain": exact_learner(4, seed), **{f"{n} of 4": exact_learner(n, seed) for n in (3, 2)}})
            for name, nodes in (("n/8", size.nodes // 8), ("n/log n", int(size.nodes / math.log(size.nodes)))):
                counted, said = random_graph_hops(nodes, size.nodes, seed=seed)
                hops.add({f"hops, M={name}": counted, f"formula, M={name}": said, f"ratio, M={name}": counted / said})
            bar.advance(seed=seed, part="theory")
    return _result(list(seeds), arms, theory, exact, hops, time.monotonic() - started)


def _result(
    seeds: list[int],
    arms: dict[tuple[str, str], Arm],
    theory: dict[str, Arm],
    exact: Arm,
    hops: Arm,
    seconds: float,
) -> ClaimResult:
    chain, tree, control, siblings = (arms["loose", name] for name in ARMS)
    best, same, plain, narrow = (arms["decayed", name] for name in ARMS)
    gain, shown = difference(tree, chain, "accuracy"), difference(control, chain, "accuracy")
    ratios = [abs(hops.values(f"ratio, M={name}") - 1) for name in ("n/8", "n/log n")]
    checks = [
        above("at equal tokens, noise by suffix, tree beats chain", gain),
        above("so does its best-of-n", difference(tree, chain, "best of n")),
        above("also with the decay that suits chain best", difference(same, best, "accuracy")),
        control_fails(
            "at equal pairs and constant noise it does not", gain, shown, difference(tree, control, "accuracy")
        ),
        above("siblings alone are worse than any two leaves", difference(control, siblings, "accuracy")),
        below("a random graph's hops are log M / log(2n/M) within a quarter", effect_of(np.maximum(*ratios)), 0.25),
        above(
            "an exact learner free to ask anywhere is left with less by chain",
            effect_of(exact.values("3 of 4") - exact.values("chain")),
        ),
    ]
    everyone, cells = list(arms.values()), [name for name in chain.measures if ", tau=" in name]
    sections = [
        arms_section("all cells (best-of-n: true reward in deviations)", everyone, ["accuracy", "best of n"]),
        arms_section(
            "accuracy by cell, and pairs", everyone,
            [name for name in cells if name.startswith("accuracy")] + [n for n in chain.measures if n[:5] == "pairs"],
        ),
        arms_section("best-of-n by cell", everyone, [name for name in cells if name.startswith("best")]),
        arms_section(
            "from answer to answer of one set (label temperature T)", list(theory.values()),
            list(theory["chain"].measures),
        ),
        arms_section("hops in random graphs of n comparisons", [hops], list(hops.measures)),
        arms_section("share of variance left to an exact learner", [exact], list(exact.measures)),
    ]  # fmt: skip
    notes = [
        f"decayed learner, constant noise, equal pairs: tree less chain {difference(plain, best, 'accuracy')}, "
        f"any leaves less siblings {difference(plain, narrow, 'accuracy')}",
        f"decayed learner, noise by suffix: best-of-n of tree less chain {difference(same, best, 'best of n')}",
        "the distances rest on an edge model of ours: what two symbols add to the reward, and logistic label noise",
    ]
    return ClaimResult(
        SLUG, CLAIM, "accuracy, tree less chain", gain, shown.value, checks,
        [*everyone, *theory.values(), exact, hops], seeds, seconds, sections, notes,
    )  # fmt: skip


__all__ = ["CLAIM", "SLUG", "TITLE", "Size", "run"]
