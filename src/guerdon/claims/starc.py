"""STARC's claim (arXiv 2309.15257): a distance between rewards that bounds regret from above and below.

Two parts, as in the system's card. (1) Small random processes and pairs of rewards that say large things of transitions
that cannot happen: the exact worst-case regret, by a linear programme, must lie between the bounds of the STARC
distances whatever is said there, while the ratio of regret to EPIC's and DARD's distance must leave every band as what
is said there grows. With it EPIC's counterexample: opposite rewards at a vanishing distance. (2) Random processes with
sparse transitions and rewards that move from one to another, each in another scale, shaped and redistributed: STARC's
distance (VAL) must follow the regret of optimising the wrong reward more closely than EPIC's does, and still where
nothing is redistributed. Negative controls: regrets shuffled over the rows, and VAL computed with another process's
transitions, which must not show the gain.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
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
from guerdon.core.progress import progress as default_progress
from guerdon.metrics.canonical import CANONICALISATIONS, STARC
from guerdon.metrics.mdp import TabularMDP, random_mdp, redistribute, shape
from guerdon.metrics.regret import best_response_regret, starc_bounds, worst_case_regret
from guerdon.metrics.reward_distance import NORMS, normalised, pairwise, reward_distance

SLUG = "starc"
TITLE = "STARC: A General Framework For Quantifying Differences Between Reward Functions"
CLAIM = (
    "a STARC distance bounds worst-case regret from above and below, which EPIC's and DARD's do not, and follows the "
    "regret of optimising another reward more closely than they do"
)
WRONG = "val, wrong transitions"
SHUFFLED = "val, shuffled regrets"
BANDED = (*STARC, "epic", "dard")

Rng = np.random.Generator
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Size:
    """How large the experiment is.

    processes, pairs:  small processes of the first part, and pairs of rewards on each; (states, actions, successors)
                       of these in ``small``.
    large:             how much more is said of impossible transitions than of possible ones.
    worlds, paths, steps:  processes of the second part, pairs of rewards on each, and steps from one reward to the
                       other, the card's 24 x 3 x 8; their (states, actions, successors) in ``wide``.
    """

    processes: int = 6
    pairs: int = 24
    small: tuple[int, int, int] = (5, 3, 2)
    large: float = 1e4
    worlds: int = 24
    paths: int = 3
    steps: int = 8
    wide: tuple[int, int, int] = (32, 4, 4)


def process(size: tuple[int, int, int], discount: float, rng: Rng) -> TabularMDP:
    """A random process of (states, actions, successors)."""
    return random_mdp(size[0], size[1], rng, successors=size[2], discount=discount)


# Bounds


def said(mdp: TabularMDP, rng: Rng) -> Array:
    """A reward on impossible transitions only, [S, A, S], standard normal."""
    return rng.normal(size=mdp.transition.shape) * (mdp.transition == 0)


def pair_of(mdp: TabularMDP, kind: int, rng: Rng) -> tuple[Array, Array]:
    """Two rewards [S, A, S]: unrelated, opposite, or near each other by a random factor from 0.01 to 1."""
    first, other = rng.normal(size=(2, *mdp.transition.shape))
    if kind == 0:
        return first, other
    return (first, -first + 0.1 * other) if kind == 1 else (first, first + 10 ** rng.uniform(-2, 0) * other)


def banded(size: Size, seed: int) -> dict[str, dict[str, float]]:
    """For each distance: how far regret / distance spreads, in decades, as more is said of what cannot happen.

    "spread" with little said of it (of size 1), "spread, much said" (of size ``large``: the same thing in both rewards,
    or different things), "growth" the difference; for STARC's also "outside", the share of pairs outside the bounds.
    """
    rng = np.random.default_rng([seed, 1])
    ratios: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in BANDED}
    outside = {name: 0 for name in STARC}
    for _ in range(size.processes):
        mdp = process(size.small, 0.9, rng)
        bounds = {name: starc_bounds(mdp, name) for name in STARC}
        for place in range(size.pairs):
            first, second = pair_of(mdp, place % 3, rng)
            own, other = said(mdp, rng), said(mdp, rng)
            other = own if place % 2 else other
            # What cannot happen moves no return: the regret is the same for both.
            share = worst_case_regret(first, second, mdp).share
            for much, scale in enumerate((1.0, size.large)):
                for name in BANDED:
                    distance = reward_distance(first + scale * own, second + scale * other, mdp, name)
                    ratios[name][much].append(share / distance)
                    if much and name in STARC:
                        kept = bounds[name].lower * distance - 1e-7 <= share <= bounds[name].upper * distance + 1e-7
                        outside[name] += not kept
    found = {}
    for name, both in ratios.items():
        little, much_said = (math.log10(max(one) / min(one)) for one in both)
        found[name] = {"spread": little, "spread, much said": much_said, "growth": much_said - little}
    for name in STARC:
        found[name]["outside"] = outside[name] / (size.processes * size.pairs)
    return found


def counterexample(size: Size, seed: int) -> dict[str, dict[str, float]]:
    """Opposite rewards that both say the same large thing of what cannot happen: distances of 2 at most, and regret."""
    rng = np.random.default_rng([seed, 2])
    mdp = process(size.small, 0.9, rng)
    reward, bluff = rng.normal(size=mdp.transition.shape), size.large * said(mdp, rng)
    pair = (reward + bluff, -reward + bluff)
    regret = worst_case_regret(*pair, mdp).share
    return {name: {"opposite": reward_distance(*pair, mdp, name), "regret": regret} for name in ("val", "epic")}


# Correlation


def disguised(reward: Array, mdp: TabularMDP, rng: Rng) -> tuple[Array, Array]:
    """The reward in another scale and shaped by a random potential; the same redistributed too, by changes of its size.

    Nothing of this is felt by a policy.
    """
    scale = 10 ** rng.uniform(-1, 1)
    shaped = shape(scale * reward, rng.normal(size=mdp.states), mdp.discount)
    return shaped, redistribute(shaped, mdp, scale * rng.uniform() * rng.normal(size=reward.shape))


def rows_of(mdp: TabularMDP, other: TabularMDP, size: Size, rng: Rng) -> list[dict[str, float]]:
    """One row a step on each path: the regret, and each distance from the path's beginning.

    "regret" is the mean of both rewards' regrets at the other's optimum. Distances by "name n m" with all norms, and
    by name for n = m = 2, "NAME shaped" for rewards that are not redistributed; ``other`` is the process whose
    transitions the control takes.
    """
    rows = []
    for _ in range(size.paths):
        start, end = rng.normal(size=(2, *mdp.transition.shape))
        for step in range(1, size.steps + 1):
            part = step / size.steps
            both = [disguised(one, mdp, rng) for one in (start, (1 - part) * start + part * end)]
            shaped, pair = (both[0][0], both[1][0]), (both[0][1], both[1][1])
            row = {"regret": 0.5 * (best_response_regret(*pair, mdp) + best_response_regret(pair[1], pair[0], mdp))}
            for name, canon in CANONICALISATIONS.items():
                canonical = [(canon(one, mdp), one) for one in pair]
                for n in NORMS:
                    made = [normalised(form, one, mdp, n) for form, one in canonical]
                    row |= {f"{name} {n} {m}": float(pairwise(made, mdp, m)[0, 1]) for m in NORMS}
                row |= {name: row[f"{name} 2 2"], f"{name} shaped": reward_distance(*shaped, mdp, name)}
            row[WRONG] = reward_distance(*pair, other, "val")
            rows.append(row)
    return rows


def correlated(size: Size, seed: int) -> dict[str, dict[str, float]]:
    """Pearson's correlation with regret over the rows, by distance.

    "correlation" for norm 2, "least" over all norms, "not redistributed" for rewards in another scale and shape only.
    """
    rng = np.random.default_rng([seed, 3])
    rows: list[dict[str, float]] = []
    for _ in range(size.worlds):
        mdp = process(size.wide, 0.95, rng)
        rows += rows_of(mdp, process(size.wide, 0.95, rng), size, rng)
    column = {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def with_regret(name: str, regret: Array) -> float:
        return float(np.corrcoef(column[name], regret)[0, 1])

    found = {}
    for name in CANONICALISATIONS:
        every = [with_regret(f"{name} {n} {m}", column["regret"]) for n in NORMS for m in NORMS]
        found[name] = {
            "correlation": with_regret(name, column["regret"]),
            "least": min(every),
            "not redistributed": with_regret(f"{name} shaped", column["regret"]),
        }
    found[WRONG] = {"correlation": with_regret(WRONG, column["regret"])}
    found[SHUFFLED] = {"correlation": with_regret("val", rng.permutation(column["regret"]))}
    return found


# The claim


def run(
    seeds: Sequence[int] = (11, 12, 13), *, progress: ProgressBar | None = None, size: Size | None = None
) -> ClaimResult:
    """Run the experiment. ``size``: a smaller one for a quick look; its verdict says nothing."""
    size = size or Size()
    arms = {name: Arm(name) for name in (*CANONICALISATIONS, WRONG, SHUFFLED)}
    began = time.monotonic()
    parts = (banded, counterexample, correlated)
    with (progress or default_progress)(len(seeds) * len(parts), SLUG) as bar:
        for seed in seeds:
            for part in parts:
                for name, values in part(size, seed).items():
                    arms[name].add(values)
                bar.advance(1)
    val, epic, wrong = arms["val"], arms["epic"], arms[WRONG]
    effect = difference(val, epic, "correlation")
    shown = difference(wrong, epic, "correlation")
    checks = _checks(
        arms, size, control_fails(f"control: {WRONG}", effect, shown, difference(val, wrong, "correlation"))
    )
    return ClaimResult(
        slug=SLUG,
        claim=CLAIM,
        measure="correlation of the distance with regret, val against epic",
        effect=effect,
        control=shown.value,
        checks=[above("val follows regret more closely than epic", effect), *checks],
        arms=list(arms.values()),
        seeds=list(seeds),
        seconds=time.monotonic() - began,
        sections=_sections(arms, size),
        notes=[
            "The bounds are derived for each process (guerdon.metrics.regret); the paper proves that there are such. "
            "Spreads are decades between the largest and the least regret / distance.",
            f"Regret in the second part is that of the other's optimum, exact; {size.worlds * size.paths * size.steps} "
            "rows a seed. 'least' is the lowest correlation over the 36 choices of n and m.",
            "What is redistributed has a random size up to the reward's own; 'not redistributed' shows how much of the "
            "gain is left without it.",
        ],
    )


def _checks(arms: dict[str, Arm], size: Size, control: Check) -> list[Check]:
    pair = 1 / (size.processes * size.pairs)
    checks = [
        below(f"{name}: no pair lies outside its bounds", effect_of(arms[name].values("outside")), 0.5 * pair)
        for name in STARC
    ]
    checks += [
        below(f"{name}: the band stays as impossible transitions say more", effect_of(arms[name].values("growth")), 0.1)
        for name in STARC
    ]
    checks += [
        above(f"{name}: its band grows by more than a decade", effect_of(arms[name].values("growth")), 1.0)
        for name in ("epic", "dard")
    ]
    checks += [
        below("epic: opposite rewards come as near as 0.05", effect_of(arms["epic"].values("opposite")), 0.05),
        above("the regret of opposite rewards is the whole range", effect_of(arms["epic"].values("regret")), 0.99),
        above("val: opposite rewards stay 2 apart", effect_of(arms["val"].values("opposite")), 1.99),
        above("val holds under norms where epic does not", difference(arms["val"], arms["epic"], "least")),
        above("val gains without redistribution too", difference(arms["val"], arms["epic"], "not redistributed")),
    ]
    shuffled = effect_of(np.abs(arms[SHUFFLED].values("correlation")))
    return [*checks, below("control: shuffled regrets correlate with nothing", shuffled, 0.25), control]


def _sections(arms: dict[str, Arm], size: Size) -> list[Section]:
    banded_arms, two = [arms[name] for name in BANDED], [arms["val"], arms["epic"]]
    count = size.processes * size.pairs
    spreads = ["spread", "spread, much said", "growth", "outside"]
    return [
        arms_section(f"regret / distance, {count} pairs a seed", banded_arms, spreads),
        arms_section("opposite rewards that say the same of what cannot happen", two, ["opposite", "regret"]),
        arms_section("correlation with regret", list(arms.values()), ["correlation", "least", "not redistributed"]),
    ]
