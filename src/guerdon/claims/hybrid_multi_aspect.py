"""HARMO (arXiv 2510.05283): rules where an answer can be checked and a model elsewhere beat either alone.

The experiment of the system's card. Two kinds of prompts, checkable and open, and four kinds of responses of 10, 40,
120 and 400 tokens: right with probability 0.25, 0.45, 0.7 and 0.7 on checkable prompts, worth 0.1, 0.4, 0.9 and 0.5 on
open ones. The reward model is faithful on open prompts and biased towards brevity on checkable ones. A softmax policy a
kind of prompt climbs group-relative advantages less the mean alone. Negative control: the routes exchanged. Without a
penalty the length is left to chance between 120 and 400 (on seeds 1 to 3 its ratio was too spread to judge by).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

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
from guerdon.objectives.length_penalties import Side, group_length_penalty

SLUG = "hybrid-multi-aspect"
CLAIM = (
    "rewarding checkable prompts by rules and open ones by a model beats rules alone, a model alone, and both added, "
    "and a length penalty tied to the group's right answers shortens them at equal accuracy"
)
LENGTHS = np.array([10.0, 40.0, 120.0, 400.0])
RIGHT, WORTH = np.array([0.25, 0.45, 0.7, 0.7]), np.array([0.1, 0.4, 0.9, 0.5])
Floats = NDArray[np.float64]
Score = Callable[[bool, Floats, Floats, Floats], Floats]
"""(whether the prompts are checkable, lengths [N, G], right or worth [N, G], what the model says [N, G]) -> [N, G]"""


@dataclass(frozen=True)
class Size:
    """steps of ``prompts`` groups of ``group`` responses of each kind; noise and bias of the model per token."""

    steps: int = 600
    prompts: int = 8
    group: int = 8
    rate: float = 1.0
    noise: float = 0.15
    bias: float = 0.004


def hybrid(checkable: bool, lengths: Floats, true: Floats, said: Floats) -> Floats:
    """The rule where there is one, the model elsewhere."""
    return true if checkable else said


def added(checkable: bool, lengths: Floats, true: Floats, said: Floats) -> Floats:
    """Both everywhere, unrouted; a rule has nothing to say of an open prompt."""
    return said + (true if checkable else 0.0)


def penalised(side: Side) -> Score:
    """`hybrid` with the penalty on checkable prompts."""

    def score(checkable: bool, lengths: Floats, true: Floats, said: Floats) -> Floats:
        base = hybrid(checkable, lengths, true, said)
        if not checkable:
            return base
        groups = torch.arange(len(lengths)).repeat_interleave(lengths.shape[1])
        cost = group_length_penalty(
            torch.from_numpy(lengths.ravel()), torch.from_numpy(true.ravel()), side=side, group_ids=groups,
            apply_to="incorrect" if side == "short" else "all",
        )  # fmt: skip
        return base + cost.numpy().reshape(lengths.shape)

    return score


ARMS: dict[str, Score] = {
    "model alone": lambda checkable, lengths, true, said: said,
    "rule alone": lambda checkable, lengths, true, said: true if checkable else np.zeros_like(said),
    "both added": added,
    "hybrid": hybrid,
    "routes exchanged": lambda checkable, lengths, true, said: said if checkable else np.zeros_like(said),
    "hybrid, short wrong ones cost": penalised("short"),
    "hybrid, two-sided penalty": penalised("two_sided"),
}
UNBIASED = "model alone, without its bias"


def trained(score: Score, size: Size, seed: int, *, bias: float | None = None) -> dict[str, float]:
    """accuracy on checkable and worth on open prompts of the policies' mean response, and the length on checkable."""
    rng = np.random.default_rng(seed)
    logits = np.zeros((2, len(LENGTHS)))
    for _ in range(size.steps):
        for place, checkable in enumerate((True, False)):
            chance = softmax(logits[place])
            kinds = rng.choice(len(LENGTHS), size=(size.prompts, size.group), p=chance)
            lengths = LENGTHS[kinds]
            true = (rng.random(kinds.shape) < RIGHT[kinds]).astype(float) if checkable else WORTH[kinds]
            said = true + rng.normal(0, size.noise, kinds.shape)
            if checkable:
                said = 0.25 * true - (size.bias if bias is None else bias) * lengths + said - true
            rewards = score(checkable, lengths, true, said)
            gains = rewards - rewards.mean(axis=1, keepdims=True)
            logits[place] += size.rate * (gains[..., None] * (np.eye(len(LENGTHS))[kinds] - chance)).mean(axis=(0, 1))
    first, second = softmax(logits, axis=1)
    return {"accuracy": float(first @ RIGHT), "worth": float(second @ WORTH), "length": float(first @ LENGTHS)}


def run(
    seeds: Sequence[int] = (11, 12, 13), *, size: Size | None = None, progress: ProgressBar = default_progress
) -> ClaimResult:
    """Measure the claim over ``seeds``."""
    started = time.monotonic()
    size = size or Size()
    arms = {name: Arm(name) for name in (*ARMS, UNBIASED)}
    with progress(len(seeds) * len(arms), SLUG) as bar:
        for seed in seeds:
            for name, arm in arms.items():
                unbiased = name == UNBIASED
                found = trained(ARMS["model alone" if unbiased else name], size, seed, bias=0.0 if unbiased else None)
                arm.add({**found, "sum": found["accuracy"] + found["worth"]})
                bar.advance(1, seed=seed, arm=name)
    model, rule, both, routed, swapped, short, sided, unbiased_arm = arms.values()
    effect, shown = difference(routed, model, "accuracy"), difference(swapped, model, "accuracy")
    checks = [
        above("routing is more often right than the model alone", effect),
        control_fails("exchanged routes are not", effect, shown, difference(routed, swapped, "accuracy")),
        above("and worth more on open prompts than the rule alone", difference(routed, rule, "worth")),
        above("it loses no accuracy to the rule alone", difference(routed, rule, "accuracy"), -0.03),
        above("nor worth to the model alone", difference(routed, model, "worth"), -0.03),
        above("it is more often right than both added up", difference(routed, both, "accuracy")),
        below("without its bias the model alone comes close", difference(routed, unbiased_arm, "accuracy"), 0.1),
        above("the two-sided penalty costs no accuracy", difference(sided, routed, "accuracy"), -0.03),
        below(
            "and settles on the shorter of two lengths that are right as often", effect_of(sided.values("length")), 150
        ),
    ]
    return ClaimResult(
        slug=SLUG,
        claim=CLAIM,
        measure="P(right) on checkable prompts, hybrid less the model alone",
        effect=effect,
        control=shown.value,
        checks=checks,
        arms=list(arms.values()),
        seeds=list(seeds),
        seconds=time.monotonic() - started,
        sections=[arms_section("policies after training", list(arms.values()), ["accuracy", "worth", "length"])],
        notes=[
            f"a penalty on short wrong answers alone takes the length to {short.mean('length'):.0f}, from "
            f"{routed.mean('length'):.0f} without one: report lengths with accuracies",
        ],
    )
