"""Rewards on a finite process side by side: every canonicalisation and norm, EPIC, DARD, worst-case regret, bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.comparisons.mdp_files import SUFFIXES, World, load_world
from guerdon.comparisons.tabular_sheet import ordered_pairs, tabular_sheet
from guerdon.comparisons.toy_worlds import TOY_WORLDS
from guerdon.core.errors import GuerdonError, nearest
from guerdon.core.progress import Progress
from guerdon.core.sheet import Sheet
from guerdon.metrics.canonical import CANONICALISATIONS, STARC, Canonicalise, dard, epic, identity, value_adjusted
from guerdon.metrics.canonical import value_adjusted_potential as val_potential
from guerdon.metrics.regret import (
    RegretBounds,
    best_response_regret,
    epic_regret_bound,
    return_range,
    starc_bounds,
    worst_case_regret,
)
from guerdon.metrics.reward_distance import NORMS, epic_distance, normalised, pairwise

UNNORMALISED = "0"
"""The name of "no normalisation" among the norms n."""
LARGEST_PROGRAMME = 2_000
"""State-action pairs up to which worst cases (linear programmes) and bounds (a null space) are computed."""

Matrix = NDArray[np.float64]
ProgressBar = Callable[[int, str], Progress[Any]]


@dataclass(frozen=True)
class TabularComparison:
    """K rewards compared; every matrix is [K, K] in the order of ``names``.

    distances:  by (canonicalisation, n, m), n "0" for no normalisation; symmetric.
    epic:       EPIC on its published scale [0, 1]; None for a sparse process.
    worst:      row i, column j: worst-case regret under reward i, as a share of its range, of a policy change that
                reward j finds no worse; nan where i finds all policies alike. None for a process too large.
    response:   likewise the regret under i of the policy that is best for j.
    epic_bound: EPIC's upper bound on ``response``, as a share of i's range. None for a sparse process.
    bounds:     STARC's constants by canonicalisation, for n = m = L2; empty for a process too large.
    ranges:     max J - min J of each reward.
    """

    world: World
    distances: dict[tuple[str, str, str], Matrix]
    epic: Matrix | None
    worst: Matrix | None
    response: Matrix
    epic_bound: Matrix | None
    bounds: dict[str, RegretBounds]
    ranges: list[float]

    @property
    def names(self) -> list[str]:
        return list(self.world.rewards)

    @property
    def canonicalisations(self) -> list[str]:
        return list(dict.fromkeys(name for name, _, _ in self.distances))

    def distance(self, canon: str = "val", n: str = "2", m: str = "2") -> Matrix:
        """One of ``distances``; the default is STARC's with VAL."""
        return self.distances[canon, n, m]

    def sheet(self) -> Sheet:
        """Tables, and heat maps where there are more than two rewards."""
        return tabular_sheet(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, each matrix as lists of rows."""
        return {
            "kind": "tabular",
            "world": self.world.name,
            "states": self.world.mdp.states,
            "actions": self.world.mdp.actions,
            "discount": self.world.mdp.discount,
            "rewards": self.names,
            "return_ranges": self.ranges,
            "distances": [
                {"canonicalisation": canon, "n": n, "m": m, "values": values.tolist()}
                for (canon, n, m), values in self.distances.items()
            ],
            "epic_published": None if self.epic is None else self.epic.tolist(),
            "worst_case_regret": None if self.worst is None else self.worst.tolist(),
            "best_response_regret": self.response.tolist(),
            "epic_regret_bound": None if self.epic_bound is None else self.epic_bound.tolist(),
            "starc_bounds": {
                name: {"lower": one.lower, "upper": one.upper, "radius": one.radius, "diameter": one.diameter}
                for name, one in self.bounds.items()
            },
        }


def find_world(name_or_path: str) -> World:
    """A toy world by its name, else the world in a file. Raises GuerdonError with the nearest of either."""
    if name_or_path in TOY_WORLDS:
        return TOY_WORLDS[name_or_path]()
    if Path(name_or_path).suffix.lower() in SUFFIXES or Path(name_or_path).exists():
        return load_world(name_or_path)
    guess = nearest(name_or_path, TOY_WORLDS)
    hint = f"; did you mean {guess!r}?" if guess else ""
    raise GuerdonError(
        f"{name_or_path!r} is no file and no built-in world{hint} built in: {', '.join(TOY_WORLDS)}; "
        f"files end in {' or '.join(SUFFIXES)}"
    )


def compare_tabular(
    world: World, names: Sequence[str] = (), *, progress: ProgressBar | None = None
) -> TabularComparison:
    """Compare the rewards ``names`` of a world (none named: all), every two of them.

    A sparse process has no table [S, A, S], so that only "val", "minimal" and "none" are compared there; a process of
    more than ``LARGEST_PROGRAMME`` state-action pairs gets neither worst cases nor bounds. Raises GuerdonError as
    `World.pick`.
    """
    chosen = world.pick(names)
    mdp, rewards = chosen.mdp, list(chosen.rewards.values())
    count, small = len(rewards), mdp.states * mdp.actions <= LARGEST_PROGRAMME
    ranges = [float(high - low) for low, high in (return_range(one, mdp) for one in rewards)]
    worst, response = np.zeros((2, count, count))
    epic_bound, published = np.zeros((2, count, count))
    with nullcontext() if progress is None else progress(count * (count - 1), "compare") as bar:
        for i, j in ordered_pairs(count):
            response[i, j] = best_response_regret(rewards[i], rewards[j], mdp)
            if small:
                worst[i, j] = worst_case_regret(rewards[i], rewards[j], mdp).share
            if not mdp.is_sparse:
                cover = (chosen.states, chosen.actions)
                published[i, j] = epic_distance(rewards[i], rewards[j], mdp, *cover)
                bound = epic_regret_bound(rewards[i], rewards[j], mdp, *cover)
                epic_bound[i, j] = bound / ranges[i] if ranges[i] else math.nan
            if bar is not None:
                bar.advance()
    for i in range(count):
        worst[i, i] = response[i, i] = epic_bound[i, i] = 0.0 if ranges[i] else math.nan
    return TabularComparison(
        world=chosen,
        distances=_distances(chosen),
        epic=None if mdp.is_sparse else published,
        worst=worst if small else None,
        response=response,
        epic_bound=None if mdp.is_sparse else epic_bound,
        bounds={name: starc_bounds(mdp, name, chosen.policy) for name in STARC} if small else {},
        ranges=ranges,
    )


def _canonicalisations(world: World) -> dict[str, Canonicalise]:
    """By name, with the world's policy and coverage distributions."""
    own: dict[str, Canonicalise] = {
        **CANONICALISATIONS,
        "val": lambda reward, mdp: value_adjusted(reward, mdp, world.policy),
        "val-potential": lambda reward, mdp: val_potential(reward, mdp, world.policy),
        "epic": lambda reward, mdp: epic(reward, mdp, world.states, world.actions),
        "dard": lambda reward, mdp: dard(reward, mdp, world.actions),
    }
    return {name: one for name, one in own.items() if name in STARC or one is identity} if world.mdp.is_sparse else own


def _distances(world: World) -> dict[tuple[str, str, str], Matrix]:
    found = {}
    rewards = list(world.rewards.values())
    for name, canon in _canonicalisations(world).items():
        canonical = [canon(one, world.mdp) for one in rewards]
        for n in (*NORMS, UNNORMALISED):
            made = canonical
            if n != UNNORMALISED:
                made = [normalised(c, one, world.mdp, n) for c, one in zip(canonical, rewards, strict=True)]
            for m in NORMS:
                found[name, n, m] = pairwise(made, world.mdp, m)
    return found
