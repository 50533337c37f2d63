"""ExTrans (arXiv 2505.12996): grades against an exemplar near the policy's level teach more than saturated scores.

A policy chooses among 16 made translations of each source by a softmax over their features; true quality is linear
in six of them, and a judge sees it with noise. GRPO with groups of eight climbs, in arms of one noise: a 5-point score
that the policy already nearly fills, a 100-point score told in steps of 5, and the five grades of a comparison with an
exemplar a little above the policy. The negative controls are exemplars far below and far above it, whose grades hardly
vary within a group.

Then the lightweight reward of other directions: a second direction is only paid for form and language. Its quality
must rise where the two share their features, and must not where they share none, and the gate must be learnt either
way. Last the gate itself: half of the translations are malformed; behind a hard gate they must fall below 2% at some
point within the steps, and a bonus of 0.1 for form beside the grades must take longer.

The edge over a fine score of the same noise is small and is shown, not judged: what the exemplar buys is resolution.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

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
from guerdon.metrics.exemplar_grades import grade_histogram
from guerdon.objectives.advantages import group_advantages

SLUG = "extrans"
CLAIM = (
    "grades of a comparison with an exemplar near the policy's level are a better signal than a coarse absolute score; "
    "paying other directions for form and language alone carries the skill over"
)
QUALITY, SCALE = 6, 0.5
EDGES = (-0.75, -0.25, 0.25, 0.75)
"""Differences of quality between the five grades."""
EXEMPLARS = {"near exemplar": 0.6, "too weak exemplar": -1.5, "too strong exemplar": 3.0}


@dataclass(frozen=True)
class Size:
    """steps: of the main arms; gate_steps: of the other parts; form_lr, form_groups: of the last."""

    steps: int = 400
    gate_steps: int = 200
    candidates: int = 16
    group: int = 8
    lr: float = 0.1
    form_lr: float = 1.0
    form_groups: int = 4
    noise: float = 0.25
    held: int = 2000


Score = Callable[[np.ndarray], np.ndarray]
"""What the judge makes of the quality that it sees, [G] -> [G]."""


def compared(exemplar: float) -> Score:
    """Grades 1 to 5 against an exemplar of a quality."""
    return lambda seen: 1.0 + np.searchsorted(EDGES, seen - exemplar)


SCORES: dict[str, Score] = {
    "5-point score": lambda seen: np.clip(np.round(4.6 + seen), 1, 5),
    "100-point score": lambda seen: np.clip(5 * np.round((70 + 8 * seen) / 5), 0, 100),
    **{name: compared(level) for name, level in EXEMPLARS.items()},
}


def chances(features: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """The policy's softmax [..., C] over candidates with features [..., C, F]."""
    logits = features @ theta
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def sources(count: int, size: Size, rng: np.random.Generator) -> np.ndarray:
    """Features [count, C, 7] of candidates: six of quality, and whether they are well-formed (half of them are)."""
    features = rng.normal(size=(count, size.candidates, QUALITY + 1))
    features[..., QUALITY] = np.arange(size.candidates) % 2
    return features


def quality(features: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """True quality, of standard deviation 0.5 among candidates."""
    return features[..., :QUALITY] @ truth


def step(
    theta: np.ndarray,
    features: np.ndarray,
    reward: Callable[[np.ndarray], np.ndarray],
    size: Size,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """(gradient, rewards) of one group: candidates [C, F] are sampled, and rewarded by their places."""
    chance = chances(features, theta)
    chosen = rng.choice(len(chance), size=size.group, p=chance)
    paid = reward(chosen)
    advantages = group_advantages(torch.from_numpy(paid), torch.zeros(size.group, dtype=torch.long)).double().numpy()
    return advantages @ (features[chosen] - chance @ features) / size.group, paid


def measured(theta: np.ndarray, truth: np.ndarray, size: Size, rng: np.random.Generator) -> tuple[float, float]:
    """(mean true quality, share of well-formed) of a policy on sources of its own."""
    features = sources(size.held, size, rng)
    chance = chances(features, theta)
    means = (chance * quality(features, truth)).sum(axis=-1)
    return float(means.mean()), float((chance * features[..., QUALITY]).sum(axis=-1).mean())


def _truth(rng: np.random.Generator) -> np.ndarray:
    direction = rng.normal(size=QUALITY)
    return SCALE * direction / np.linalg.norm(direction)


def climb(score: Score, size: Size, seed: int) -> dict[str, float]:
    """Gain of true quality, share of groups without spread, and share of grades that are clear wins."""
    rng = np.random.default_rng([seed, 1])
    truth, theta = _truth(rng), np.zeros(QUALITY + 1)
    before, _ = measured(theta, truth, size, np.random.default_rng([seed, 2]))
    flat, grades = 0, []
    for _ in range(size.steps):
        features = sources(1, size, rng)[0]
        features[:, QUALITY] = 0.0  # the form plays no part here
        seen = quality(features, truth)

        def paid(chosen: np.ndarray, seen: np.ndarray = seen) -> np.ndarray:
            return score(seen[chosen] + size.noise * rng.normal(size=len(chosen))).astype(np.float64)

        gradient, rewards = step(theta, features, paid, size, rng)
        theta = theta + size.lr * gradient
        flat += int(np.ptp(rewards) == 0)
        grades.extend(rewards.tolist())
    after, _ = measured(theta, truth, size, np.random.default_rng([seed, 2]))
    found = {"gain": after - before, "no spread": flat / size.steps}
    if max(grades) <= 5:
        found["wins"] = grade_histogram(grades).high
    return found


def carried(shared: bool, size: Size, seed: int) -> dict[str, float]:
    """Gain of quality and share of well-formed translations of a second direction that is paid for form alone."""
    rng = np.random.default_rng([seed, 3])
    truth = _truth(rng)
    thetas = [np.zeros(QUALITY + 1), np.zeros(QUALITY + 1)]
    score = compared(EXEMPLARS["near exemplar"])
    for _ in range(size.gate_steps):
        for direction in (0, 1):
            features = sources(1, size, rng)[0]
            formed, seen = features[:, QUALITY] > 0.5, quality(features, truth)

            def paid(
                chosen: np.ndarray, direction: int = direction, formed: np.ndarray = formed, seen: np.ndarray = seen
            ) -> np.ndarray:
                grades = score(seen[chosen] + size.noise * rng.normal(size=len(chosen)))
                return np.where(formed[chosen], 1.0 if direction else grades, 0.0)

            gradient, _ = step(thetas[direction], features, paid, size, rng)
            for own in (0, 1) if shared else (direction,):
                thetas[own] = thetas[own] + size.lr * gradient
    value, passed = measured(thetas[1], truth, size, np.random.default_rng([seed, 2]))
    return {"gain": value, "well-formed": passed, "anchor": measured(thetas[0], truth, size, rng)[0]}


def formed(gated: bool, size: Size, seed: int) -> dict[str, float]:
    """Steps until under 2% are malformed, and the share at the end, of a gate or of a bonus of 0.1 beside the grade."""
    rng = np.random.default_rng([seed, 4])
    truth, theta = _truth(rng), np.zeros(QUALITY + 1)
    score = compared(EXEMPLARS["near exemplar"])
    reached = size.gate_steps
    for update in range(size.gate_steps):
        total = np.zeros_like(theta)
        for features in sources(size.form_groups, size, rng):
            right, seen = features[:, QUALITY] > 0.5, quality(features, truth)

            def paid(chosen: np.ndarray, right: np.ndarray = right, seen: np.ndarray = seen) -> np.ndarray:
                grades = score(seen[chosen] + size.noise * rng.normal(size=len(chosen)))
                return np.where(right[chosen], grades, 0.0) if gated else grades + 0.1 * right[chosen]

            total += step(theta, features, paid, size, rng)[0]
        theta = theta + size.form_lr * total / size.form_groups
        small = replace(size, held=min(size.held, 1000))
        if reached == size.gate_steps and measured(theta, truth, small, np.random.default_rng(update))[1] > 0.98:
            reached = update + 1
    value, passed = measured(theta, truth, size, np.random.default_rng([seed, 2]))
    return {"malformed": 1 - passed, "steps": float(reached), "gain": value}


def run(
    seeds: Sequence[int] = (11, 12, 13), *, size: Size | None = None, progress: ProgressBar = default_progress
) -> ClaimResult:
    """Measure the claim over ``seeds``."""
    started = time.monotonic()
    size = size or Size()
    arms = {name: Arm(name) for name in SCORES}
    directions = {"shared features": True, "no shared features": False}
    forms = {"hard gate": True, "bonus of 0.1": False}
    arms |= {name: Arm(name) for name in (*directions, *forms)}
    with progress(len(seeds) * len(arms), SLUG) as bar:
        for seed in seeds:
            for name, arm in arms.items():
                if name in SCORES:
                    arm.add(climb(SCORES[name], size, seed))
                elif name in directions:
                    arm.add(carried(directions[name], size, seed))
                else:
                    arm.add(formed(forms[name], size, seed))
                bar.advance(1, seed=seed, arm=name)
    coarse, fine, near, weak, strong = (arms[name] for name in SCORES)
    shared, apart = (arms[name] for name in directions)
    gated, bonus = (arms[name] for name in forms)
    gain = difference(near, coarse, "gain")
    checks = [
        above("a near exemplar gains more than a 5-point score", gain),
        control_fails(
            "too weak an exemplar does not", gain, difference(weak, coarse, "gain"), difference(near, weak, "gain")
        ),
        control_fails(
            "nor does too strong a one", gain, difference(strong, coarse, "gain"), difference(near, strong, "gain")
        ),
        below("fewer of its groups are without spread", difference(near, coarse, "no spread"), -0.3),
        above("form alone is learnt in the second direction", effect_of(shared.values("well-formed")), 0.95),
        above("also without shared features", effect_of(apart.values("well-formed")), 0.95),
        above("its quality rises through shared features", effect_of(shared.values("gain")), 0.2),
        above("and less without them", difference(shared, apart, "gain"), 0.2),
        below("behind the gate under 2% are malformed in time", effect_of(gated.values("steps")), size.gate_steps),
        above("which a bonus takes longer for", difference(bonus, gated, "steps")),
    ]
    return ClaimResult(
        slug=SLUG,
        claim=CLAIM,
        measure="gain of true quality over the 5-point score",
        effect=gain,
        control=difference(weak, coarse, "gain").value,
        checks=checks,
        arms=list(arms.values()),
        seeds=list(seeds),
        seconds=time.monotonic() - started,
        sections=[
            arms_section("quality gained", [coarse, fine, near, weak, strong], ["gain", "no spread"]),
            arms_section("a direction paid for form alone", [shared, apart], ["well-formed", "gain", "anchor"]),
            arms_section("malformed translations", [gated, bonus], ["malformed", "steps", "gain"]),
        ],
        notes=["A 100-point score of the same noise is shown, not judged: an exemplar is hardly better than that."],
    )


quick = partial(run, size=replace(Size(), steps=20, gate_steps=10, held=50))
"""The same in seconds, for tests: it shows that everything runs, not that the claim holds."""
