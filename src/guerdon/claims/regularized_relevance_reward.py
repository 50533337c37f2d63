"""Regularized Relevance Reward (arXiv 2402.03469v1): every term closes the hole of the one before.

The hacking ladder of the system's card. For each query a softmax policy chooses among recipes of a response, made as
texts: copy the query, repeat it ten times, a short and a long answer on its topic, a long answer on another topic, and
for closed queries the reference, alone and padded. REINFORCE climbs each reward, scored on the texts themselves by the
real terms with hashed n-grams as the encoder. The negative control's relevance is to another query. A length alone, and
the open branch for all queries, are the paper's own ablations.

That relevance alone copies was first asked of single copies; by a cosine ten copies are as relevant, which was seen on
seeds 1 to 3, and either counts now.

The preliminary claim is asked of a reward model of two features, length and relevance, fitted to pairs whose winner is
the longer one and the one on the topic in three of four, and, for comparison, to pairs whose winner is as often the
shorter: does it put a short answer on the topic of a new query above a long one off it?
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from guerdon.audits.off_topic import OffTopicItem, off_topic_probe
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
from guerdon.core.progress import progress as default_progress
from guerdon.metrics.monotonicity import monotonicity
from guerdon.models.baselines import linear_bradley_terry
from guerdon.rewards.subject import RewardSubject
from guerdon.rewards.text.relevance import LengthIncentive, Product, Relevance, TrigramDiversity, regularized_relevance

SLUG = "regularized-relevance-reward"
CLAIM = (
    "relevance alone is hacked by copying, times length by repeating; times diversity as well it makes long, diverse, "
    "relevant answers, and closed queries need the reference instead"
)
COPY, REPEAT, SHORT, LONG, OFF, REFERENCE, PADDED = range(7)
NAMES = ("copy", "repeat", "short", "long", "off topic", "reference", "padded")
# What a person would give each recipe on open and on closed queries; no reward sees it.
WORTH = np.array([[0.0, 0.0, 0.6, 1.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.3, 0.3, 0.0, 1.0, 0.4]])
_SYLLABLES = ("ka", "lo", "mi", "ru", "te", "na", "so", "vi", "do", "pe", "ga", "zu", "fe", "bo", "ri", "ha")
_COMMON = "is of the and in it with for on as was by that from are this be at or an which not but has".split()


@dataclass(frozen=True)
class Size:
    """queries: of each kind. vocabulary: words of a topic's own."""

    queries: int = 24
    vocabulary: int = 30
    pairs: int = 2000
    updates: int = 400
    batch: int = 16
    rate: float = 2.0
    checkpoints: int = 10


@dataclass(frozen=True)
class World:
    """texts [2 * queries][7]; open queries first. ``other``: of each query, a query of another topic."""

    queries: list[str]
    other: list[str]
    texts: list[list[str]]
    references: list[str]


def world(size: Size, seed: int) -> World:
    """Topics of made-up words: what is on topic shares them with the query, and other topics do not."""
    rng = np.random.default_rng(seed)
    topics = [
        ["".join(rng.choice(_SYLLABLES, size=3)) for _ in range(size.vocabulary)] for _ in range(2 * size.queries)
    ]

    def said(topic: list[str], count: int) -> str:
        own = rng.permutation(topic * (1 + count // len(topic)))[: count // 2]
        filler = rng.choice(_COMMON, size=count - len(own))
        return " ".join(rng.permutation([*own, *filler])) + "."

    queries, texts, references = [], [], []
    for place, topic in enumerate(topics):
        query = f"tell me about {' '.join(topic[:6])}"
        reference = said(topic[6:14], 16)
        far = topics[(place + 1) % len(topics)]
        long = f"{query.removeprefix('tell me about ')} {said(topic, 90)}"
        queries.append(query)
        references.append(reference)
        texts.append(
            [query, " ".join([query] * 10), f"{topic[0]} {topic[1]} {said(topic, 10)}", long, said(far, 100), reference,
             f"{reference} {said(topic, 80)}"]
        )  # fmt: skip
    return World(queries, queries[1:] + queries[:1], texts, references)


def paid(made: World, arm: str, size: Size) -> NDArray[np.float64]:
    """[2 * queries, 7]: what ``arm`` pays for each recipe of each query."""
    count = len(NAMES)
    relevance = Relevance()
    rewards: dict[str, Any] = {
        "relevance": relevance,
        "length": LengthIncentive(cap=5.12),
        "times length": Product([relevance, LengthIncentive(cap=5.12)]),
        "open branch for all": Product([relevance, LengthIncentive(cap=5.12), TrigramDiversity()]),
    }
    reward = rewards.get(arm) or regularized_relevance()
    asked = made.other if arm == "R3 of another query" else made.queries
    references = made.references[1:] + made.references[:1] if arm == "R3 of another query" else made.references
    flat = [text for row in made.texts for text in row]
    prompts = [query for query in asked for _ in range(count)]
    kinds = ["OPENENDED"] * size.queries + ["CONSTRAINED"] * size.queries
    columns = {
        "qtype": [kind for kind in kinds for _ in range(count)],
        "reference": [one for one in references for _ in range(count)],
    }
    return np.array(reward(prompts, flat, **columns), np.float64).reshape(-1, count)


def climbed(pay: NDArray[np.float64], size: Size, seed: int) -> list[NDArray[np.float64]]:
    """The policies [2, 7] of open and closed queries at each checkpoint, by REINFORCE from uniform."""
    rng = np.random.default_rng(seed)
    logits = np.zeros((2, len(NAMES)))
    seen = []
    scale = pay.std()
    for update in range(size.updates):
        for kind in range(2):
            chance = softmax(logits[kind])
            queries = rng.integers(size.queries, size=size.batch) + kind * size.queries
            chosen = rng.choice(len(NAMES), size=size.batch, p=chance)
            gains = pay[queries, chosen] / scale
            gains = gains - gains.mean()
            logits[kind] += size.rate * (gains[:, None] * (np.eye(len(NAMES))[chosen] - chance)).mean(axis=0)
        if (update + 1) % (size.updates // size.checkpoints) == 0:
            seen.append(softmax(logits, axis=1))
    return seen


class TwoFeatures:
    """A Bradley-Terry reward model, linear in log words and relevance: what preference pairs teach about length."""

    __name__ = "two_features"

    def __init__(self, weights: NDArray[np.float64]) -> None:
        self.weights = weights

    def __call__(self, prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[float]:
        """One score a completion."""
        return (_features(prompts, completions) @ self.weights).tolist()


def _features(prompts: Sequence[Any], completions: Sequence[str]) -> NDArray[np.float64]:
    counted = np.log([len(text.split()) for text in completions])
    return np.stack([counted, np.array(Relevance()(prompts, completions), np.float64)], axis=1)


def preferring(made: World, size: Size, seed: int, *, longer: float = 0.75, on_topic: float = 0.75) -> TwoFeatures:
    """A reward model of pairs whose winner is the longer, and the one on the topic, in such shares, independently."""
    rng = np.random.default_rng(seed)
    prompts, texts = [], []
    for _ in range(size.pairs):
        place = int(rng.integers(len(made.queries)))
        lengths = sorted(rng.choice(np.arange(10, 101), size=2, replace=False), reverse=bool(rng.random() < longer))
        right = rng.random() < on_topic
        for long, on in zip(lengths, (right, not right)):
            words = made.texts[place][LONG if on else OFF].split()
            texts.append(" ".join(rng.permutation(words)[:long]))
            prompts.append(made.queries[place])
    gaps = _features(prompts, texts).reshape(size.pairs, 2, 2)
    gaps = gaps[:, 0] - gaps[:, 1]
    return TwoFeatures(linear_bradley_terry(gaps, 1e3))


def probed(made: World, reward: Any) -> float:
    """How often ``reward`` puts the short answer on the topic above the long one off it."""
    items = [OffTopicItem(query, row[SHORT], row[OFF]) for query, row in zip(made.queries, made.texts)]
    return off_topic_probe(RewardSubject(reward), items).won.value


PROBED = ("preference model", "preference model, lengths balanced", "relevance, probed")
ARMS = ("relevance", "length", "times length", "open branch for all", "R3", "R3 of another query")


def measured(made: World, arm: str, size: Size, seed: int) -> dict[str, float]:
    """Probabilities of the recipes at the end, the worth of the policy, and Spearman's rho of reward and worth."""
    pay = paid(made, arm, size)
    seen = climbed(pay, size, seed)
    opened, closed = seen[-1]
    found = {f"open: {name}": float(value) for name, value in zip(NAMES, opened)}
    found |= {f"closed: {name}": float(value) for name, value in zip(NAMES, closed)}
    means = pay.reshape(2, size.queries, len(NAMES)).mean(axis=1)
    proxy = np.array([(policy * means).sum(axis=1) for policy in seen])
    gold = np.array([(policy * WORTH).sum(axis=1) for policy in seen])
    rho = monotonicity(proxy, gold).rho
    return {**found, "worth": float((seen[-1] * WORTH).sum(axis=1).mean()), "rho": 0.0 if np.isnan(rho) else rho}


def run(
    seeds: Sequence[int] = (11, 12, 13), *, size: Size | None = None, progress: ProgressBar = default_progress
) -> ClaimResult:
    """Measure the claim over ``seeds``."""
    started = time.monotonic()
    size = size or Size()
    arms = {name: Arm(name) for name in ARMS}
    asked = {name: Arm(name) for name in PROBED}
    with progress(len(seeds) * len(arms), SLUG) as bar:
        for seed in seeds:
            made, new = world(size, seed), world(size, seed + 1000)
            liking = (preferring(made, size, seed), preferring(made, size, seed, longer=0.5), Relevance())
            for arm, judge in zip(asked.values(), liking):
                arm.add({"short on topic wins": probed(new, judge)})
            for name, arm in arms.items():
                arm.add(measured(made, name, size, seed))
                bar.advance(1, seed=seed, arm=name)
    relevance, length, longer, everywhere, whole, control = arms.values()
    effect, shown = difference(whole, relevance, "worth"), difference(control, relevance, "worth")
    copied = relevance.values("open: copy") + relevance.values("open: repeat")
    liked, balanced, relevant = (effect_of(arm.values("short on topic wins")) for arm in asked.values())
    checks = [
        below("a model of preferences for length puts long answers off the topic first", liked, 0.5),
        above("one of pairs balanced in length does not", balanced, 0.5),
        above("nor does relevance", relevant, 0.95),
        above("R3 is worth more than relevance alone", effect),
        control_fails("relevance to another query is not", effect, shown, difference(whole, control, "worth")),
        # A cosine does not tell a text from ten copies of it.
        above("relevance alone copies the query, once or often", effect_of(copied), 0.9),
        above("times length it is repeated", effect_of(longer.values("open: repeat")), 0.5),
        above("with diversity it is a long answer on the topic", effect_of(whole.values("open: long")), 0.5),
        below("the open branch for all answers closed queries by the reference less than R3",
              difference(everywhere, whole, "closed: reference"), -0.3),
        above("R3 answers them by the reference", effect_of(whole.values("closed: reference")), 0.5),
        above("R3 rises with what it is worth, Spearman", effect_of(whole.values("rho")), 0.9),
        above("more than relevance alone does", difference(whole, relevance, "rho")),
    ]  # fmt: skip
    tables = [
        arms_section(f"{kind} queries", list(arms.values()), [f"{kind}: {name}" for name in NAMES])
        for kind in ("open", "closed")
    ]
    return ClaimResult(
        slug=SLUG,
        claim=CLAIM,
        measure="worth of the policy's answers, R3 less relevance alone",
        effect=effect,
        control=shown.value,
        checks=checks,
        arms=[*arms.values(), *asked.values()],
        seeds=list(seeds),
        seconds=time.monotonic() - started,
        sections=[
            *tables,
            arms_section("worth, and its rank correlation with the reward", list(arms.values()), ["worth", "rho"]),
            arms_section(
                "a short answer on the topic above a long one off it", list(asked.values()), ["short on topic wins"]
            ),
        ],  # fmt: skip
    )
