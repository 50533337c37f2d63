"""A comparison of tabular rewards as people read it."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from guerdon.core.sheet import Cell, Heat, Part, Sheet, Table
from guerdon.metrics.canonical import STARC
from guerdon.metrics.reward_distance import NORMS

if TYPE_CHECKING:
    from guerdon.comparisons.tabular import TabularComparison

SAME = 1e-6
"""Distances up to this are 0: what rounding leaves."""

GUARANTEES = (
    "val and minimal are STARC distances: 0 exactly where two rewards order all policies of this process alike, and "
    "worst-case regret lies between the two bounds beside it, a constant of the process times the distance. The "
    "constants are sound, not tight; an upper bound above 1 says nothing.",
    "epic, dard, val-potential and minimal-potential remove shaping only. What a reward says of transitions that never "
    "happen stays in them: they can be near 0 where policies differ as far as they can, and large where none does. "
    "'none' removes nothing.",
    "Shaping is removed where it was made with this process's discount, and redistribution where it was made with its "
    "transitions; a reward shaped for another process is another reward.",
)


def same_behaviour(distances: NDArray[np.float64]) -> list[list[int]]:
    """Rewards at distance 0 of each other, as groups of their numbers; each stands in one."""
    groups: list[list[int]] = []
    for place in range(len(distances)):
        home = next((group for group in groups if distances[group[0], place] <= SAME), None)
        if home is None:
            groups.append([place])
        else:
            home.append(place)
    return groups


def ordered_pairs(count: int) -> list[tuple[int, int]]:
    """(i, j) and (j, i) of every two numbers below ``count``."""
    return [pair for i, j in combinations(range(count), 2) for pair in ((i, j), (j, i))]


def tabular_sheet(found: TabularComparison) -> Sheet:
    """The `Sheet` of a comparison: a full table of norms for two rewards, one row a pair and heat maps for more."""
    world, names = found.world, found.names
    trivial = [name for name, span in zip(names, found.ranges, strict=True) if not span]
    facts = {
        "process": f"{world.name} ({world.about})" if world.about else world.name,
        "states, actions": f"{world.mdp.states}, {world.mdp.actions}" + (" (sparse)" if world.mdp.is_sparse else ""),
        "discount": f"{world.mdp.discount:g}",
        "values of": "the uniform policy" if world.policy is None else "the file's policy",
        "rewards": ", ".join(names),
    }
    if trivial:
        facts["find all policies alike"] = ", ".join(trivial)
    # Many rewards are many pairs: their maps come before their tables.
    parts: list[Part] = [_norms(found)] if len(names) == 2 else [*_heats(found), _pairs(found)]
    parts.append(_regret(found))
    notes = list(GUARANTEES)
    if found.worst is None:
        notes.append("The process is too large for the linear programmes of worst-case regret and for the bounds.")
    elif any(math.isinf(one.upper) for one in found.bounds.values()):
        notes.append("Some state is never reached, whatever the policy: no constant bounds regret by a distance here.")
    return Sheet("comparison", f"Rewards on {world.name}", _lead(found), facts, parts, notes)


def _lead(found: TabularComparison) -> str:
    names, distance = found.names, found.distance()
    if len(names) == 2:
        told = f"{names[0]} and {names[1]}"
        if distance[0, 1] <= SAME:
            return f"{told} order all policies alike: their STARC distance is 0."
        minimal = found.distance("minimal")[0, 1]
        lead = f"{told} ask for different behaviour: STARC distance {distance[0, 1]:.3f} (val), {minimal:.3f} (minimal)"
        lead += " on a scale from 0 to 2"
        if not all(found.ranges):
            return f"{lead}; {' and '.join(n for n, r in zip(names, found.ranges) if not r)} finds all policies alike."
        if found.worst is not None:
            lead += f"; a change that {names[1]} does not mind can cost {found.worst[0, 1]:.0%} of {names[0]}'s range"
        return f"{lead}; following {names[1]} to its optimum costs {found.response[0, 1]:.0%} of {names[0]}'s range."
    groups = same_behaviour(distance)
    alike = [" = ".join(names[place] for place in group) for group in groups if len(group) > 1]
    lead = f"{len(names)} rewards ask for {len(groups)} different behaviours" if alike else "No two rewards ask for the"
    lead += f": {'; '.join(alike)}" if alike else " same behaviour"
    far = np.unravel_index(np.argmax(distance), distance.shape)
    return f"{lead}. Farthest apart: {names[far[0]]} and {names[far[1]]}, {distance[far]:.3f} of 2."


def _norms(found: TabularComparison) -> Table:
    columns = ["canonicalisation", *NORMS, "2, not normalised", "published scale"]
    rows: list[list[Cell]] = []
    for canon in found.canonicalisations:
        row: list[Cell] = [canon + (" (STARC)" if canon in STARC else "")]
        row += [_zero(found.distance(canon, norm, norm)[0, 1]) for norm in NORMS]
        published = None if canon != "epic" or found.epic is None else _zero(found.epic[0, 1])
        rows.append([*row, _zero(found.distance(canon, "0", "2")[0, 1]), published])
    note = (
        "n = m in the head of each column, 0 to 2; every other n and m is in result.json. EPIC's published distance is "
    )
    return Table("Distance by canonicalisation and norm", columns, rows, note + "half of that under norm 2.")


def _pairs(found: TabularComparison) -> Table:
    rows: list[list[Cell]] = []
    for i, j in combinations(range(len(found.names)), 2):
        row: list[Cell] = [found.names[i], found.names[j]]
        row += [_zero(found.distance(canon)[i, j]) for canon in found.canonicalisations]
        rows.append([*row, None if found.epic is None else _zero(found.epic[i, j])])
    columns = ["reward", "and", *found.canonicalisations, "epic, published scale"]
    return Table("Distance by canonicalisation", columns, rows, "Norm 2, 0 to 2; every other norm is in result.json.")


def _regret(found: TabularComparison) -> Table:
    columns = ["judged by", "following", "worst case"]
    columns += [f"{side} ({canon})" for canon in found.bounds for side in ("at least", "at most")]
    columns += ["at the optimum", "EPIC's bound on it"]
    rows: list[list[Cell]] = []
    for i, j in ordered_pairs(len(found.names)):
        row: list[Cell] = [found.names[i], found.names[j], None if found.worst is None else _zero(found.worst[i, j])]
        for canon, bounds in found.bounds.items():
            distance = float(found.distance(canon)[i, j])
            upper = bounds.upper * distance if distance > SAME else 0.0
            told = found.ranges[i] > 0
            row.append(_zero(bounds.lower * distance) if told else None)
            row.append(_zero(upper) if told and math.isfinite(upper) else None)
        rows.append(
            [*row, _zero(found.response[i, j]), None if found.epic_bound is None else _zero(found.epic_bound[i, j])]
        )
    note = (
        "Shares of the first reward's range. Worst case: going from any policy to one that the second finds no worse. "
        "At the optimum: from the first's best policy to the second's. A dash: the first finds all policies alike, or "
        "it was not computed."
    )
    return Table("Regret", columns, rows, note)


def _heats(found: TabularComparison) -> list[Part]:
    names = found.names
    made: list[Part] = [
        Heat(f"Distance, {canon}", names, names, _cells(found.distance(canon)), 0.0, 2.0)
        for canon in (*STARC, "epic", "dard")
        if canon in found.canonicalisations
    ]
    if found.worst is not None:
        title = "Worst-case regret, judged by the row, following the column"
        made.append(Heat(title, names, names, _cells(found.worst)))
    made.append(Heat("Regret at the column's optimum, judged by the row", names, names, _cells(found.response)))
    return made


def _cells(values: NDArray[np.float64]) -> list[list[float]]:
    return [[_zero(value) for value in row] for row in values]


def _zero(value: float) -> float:
    """The value, without what rounding left of a 0."""
    return 0.0 if abs(value) <= SAME else float(value)
