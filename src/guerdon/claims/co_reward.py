"""Co-Reward (arXiv 2508.00410): labels from another wording of a question teach more than labels from one's own vote.

A tabular policy answers 300 questions in two wordings, with four possible answers each. Its logits are an advantage of
the right answer plus noise that both wordings share plus noise of each wording. It climbs the group-relative advantage
of a reward: the truth, its own majority (8 rollouts, and 16 for the same cost), or the majority of the other wording.
Cross-labels must beat own votes where the wordings err independently. They must not where the second wording is a copy
of the first (the negative control), where both share their errors, or where the base is below chance.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

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

SLUG = "co-reward"
CLAIM = (
    "when the majority answer to a paraphrase labels the answers to a question, and the other way round, a policy "
    "learns more without labels than from its own majority, because a wording's errors do not reward themselves"
)
Source = Literal["truth", "own", "other"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Size:
    """The bandit; the card's numbers."""

    questions: int = 300
    answers: int = 4
    rollouts: int = 8
    updates: int = 120
    lr: float = 0.6


@dataclass(frozen=True)
class Base:
    """The policy before training: advantage of the right answer (answer 0), and the two kinds of noise (sd)."""

    right: float
    shared: float
    own: float


INDEPENDENT, SHARED, WEAK = Base(1.2, 0.3, 1.0), Base(1.2, 1.0, 0.05), Base(-0.3, 0.3, 1.0)
ARMS: dict[str, tuple[Base, Source, int, bool]] = {
    # name: base, label, rollouts as a multiple, the second wording a copy
    "truth": (INDEPENDENT, "truth", 1, False),
    "own vote": (INDEPENDENT, "own", 1, False),
    "own vote, 16 rollouts": (INDEPENDENT, "own", 2, False),
    "cross-view": (INDEPENDENT, "other", 1, False),
    "cross-view, copies": (INDEPENDENT, "other", 1, True),
    "own vote, shared errors": (SHARED, "own", 1, False),
    "cross-view, shared errors": (SHARED, "other", 1, False),
    "own vote, weak base": (WEAK, "own", 1, False),
    "cross-view, weak base": (WEAK, "other", 1, False),
}


def first_mode(answers: NDArray[np.int64], kinds: int) -> NDArray[np.int64]:
    """The most frequent answer of each group [..., n] -> [...]; among equals the one seen first."""
    counts = (answers[..., None] == np.arange(kinds)).sum(axis=-2)
    own = np.take_along_axis(counts, answers, axis=-1)
    first = np.argmax(own == counts.max(axis=-1, keepdims=True), axis=-1)
    return np.take_along_axis(answers, first[..., None], axis=-1)[..., 0]


def advantages(rewards: Floats) -> Floats:
    """(r - mean) / (sample deviation + 1e-6) over the last axis: each view's group on its own."""
    return (rewards - rewards.mean(axis=-1, keepdims=True)) / (rewards.std(axis=-1, ddof=1, keepdims=True) + 1e-6)


def train(
    base: Base, source: Source, size: Size, seed: int, *, times: int = 1, copies: bool = False
) -> dict[str, float]:
    """Mean probability of the right answer "before" and "after", and how many "labels" were right over the run.

    copies: both wordings are the first one, with the same parameters, so that each update moves both.
    """
    rng = np.random.default_rng(seed)
    shape = (size.questions, 2, size.answers)
    logits = base.shared * rng.normal(size=shape)[:, :1] + base.own * rng.normal(size=shape)
    logits[..., 0] += base.right
    if copies:
        logits[:, 1] = logits[:, 0]
    before = float(_chances(logits)[..., 0].mean())
    right = []
    for _ in range(size.updates):
        chance = _chances(logits)
        noise = rng.gumbel(size=(size.questions, 2, size.rollouts * times, size.answers))
        answers = np.argmax(logits[:, :, None] + noise, axis=-1)
        if source == "truth":
            labels = np.zeros(answers.shape[:2], dtype=np.int64)
        else:
            labels = first_mode(answers, size.answers)
            labels = labels if source == "own" else labels[:, ::-1]
        right.append(float((labels == 0).mean()))
        gains = advantages((answers == labels[..., None]).astype(float))
        taken = (answers[..., None] == np.arange(size.answers)) - chance[:, :, None]
        step = (gains[..., None] * taken).mean(axis=2)
        if copies:
            step = np.repeat(step.mean(axis=1, keepdims=True), 2, axis=1)
        logits = logits + size.lr * step
    return {"before": before, "after": float(_chances(logits)[..., 0].mean()), "labels": float(np.mean(right))}


def _chances(logits: Floats) -> Floats:
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return odds / odds.sum(axis=-1, keepdims=True)


def run(
    seeds: Sequence[int] = (11, 12, 13), *, size: Size | None = None, progress: ProgressBar = default_progress
) -> ClaimResult:
    """Measure the claim over ``seeds``."""
    started = time.monotonic()
    size = size or Size()
    arms = {name: Arm(name) for name in ARMS}
    with progress(len(seeds) * len(ARMS), SLUG) as bar:
        for seed in seeds:
            for name, (base, source, times, copies) in ARMS.items():
                arms[name].add(train(base, source, size, seed, times=times, copies=copies))
                bar.advance(1, seed=seed, arm=name)
    own, cross, copied = arms["own vote"], arms["cross-view"], arms["cross-view, copies"]
    effect = difference(cross, own, "after")
    shared = difference(arms["cross-view, shared errors"], arms["own vote, shared errors"], "after")
    weak = arms["cross-view, weak base"]
    start = Arm("weak base before", {"after": list(weak.measures["before"])})
    shown = difference(copied, own, "after")
    # No gain means less than half of the effect, everywhere. Decided on seeds 1 to 3, where a weak base lost 0.05.
    little = max(effect.value, 0.0) / 2
    checks = [
        above("labels of the other wording beat the own vote", effect),
        control_fails("a copy for a second wording gives nothing", effect, shown, difference(cross, copied, "after")),
        above("also at equal cost", difference(cross, arms["own vote, 16 rollouts"], "after")),
        below("where the wordings share their errors there is little to gain", shared, little),
        below("on a base below chance there is no gain", difference(weak, start, "after"), little),
    ]
    return ClaimResult(
        slug=SLUG,
        claim=CLAIM,
        measure="mean probability of the right answer",
        effect=effect,
        control=shown.value,
        checks=checks,
        arms=list(arms.values()),
        seeds=list(seeds),
        seconds=time.monotonic() - started,
        sections=[arms_section("right answer, and share of labels that were right", list(arms.values()), MEASURES)],
        notes=["the wordings have no parameters in common: what a language model carries over is not in this check"],
    )


MEASURES = ["before", "after", "labels"]
quick = partial(run, size=replace(Size(), questions=40, updates=15))
"""The same in a second, for tests: it shows that everything runs, not that the claim holds."""
