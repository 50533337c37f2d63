"""Credit of rows, gathered by subset: means with bootstrap intervals, weighted totals, and two subjects compared."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError
from guerdon.metrics.intervals import Interval, group_index, percentile_interval
from guerdon.metrics.paired_significance import SignTest, holm, sign_test

__all__ = ["Credits", "Difference", "Special", "SubsetScore", "Weights", "compare", "subset_scores", "totals"]

RESAMPLES = 2000
Weights = Mapping[str, Mapping[str, float]]
"""Total -> subset -> what its score counts in it."""
Draws = NDArray[np.float64]
_CELLS = 1 << 22


@dataclass(frozen=True)
class Special:
    """A subset whose score is no mean of credits: the score of resampled groups, counts [R, G] -> [R].

    ``outcome`` [N] is what of each row a sign test may compare.
    """

    score: Callable[[Draws], Draws]
    groups: int
    outcome: NDArray[np.float64]


@dataclass(frozen=True)
class Credits:
    """What one subject earned.

    subsets, groups: [N], each row's subset, and what is resampled as a whole (its prompt).
    credit: [N] in [0, 1]; NaN where there is no judgement. special: subsets that are scored in another way.
    """

    subsets: Sequence[str]
    groups: Sequence[str]
    credit: NDArray[np.float64]
    special: Mapping[str, Special] = field(default_factory=dict)

    def names(self) -> list[str]:
        """The subsets, in the order of the rows."""
        return list(dict.fromkeys(self.subsets))

    def rows(self, subset: str) -> NDArray[np.int64]:
        """The rows of a subset."""
        return np.flatnonzero(np.asarray(self.subsets) == subset)


@dataclass(frozen=True)
class SubsetScore:
    """A subset's score and its interval, over the rows that were judged, and what chance would give (None: unknown)."""

    name: str
    rows: int
    unjudged: int
    score: Interval
    chance: float | None = None


@dataclass(frozen=True)
class Difference:
    """One subject less another on the rows that both judged. p_adjusted: Holm's, over the subsets; NaN for a total."""

    name: str
    difference: Interval
    test: SignTest
    p_adjusted: float = float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def subset_scores(
    credits: Credits, *, chance: Mapping[str, float] | None = None, seed: int = 0
) -> tuple[list[SubsetScore], dict[str, Draws]]:
    """Every subset's score with its 95% interval, and the draws [R] behind it, for `totals`.

    A subset without any judged row scores NaN. Intervals resample groups within the subset.
    """
    found, draws = [], {}
    for name in credits.names():
        rows = credits.rows(name)
        own = credits.credit[rows]
        if name in credits.special:
            special = credits.special[name]
            value, drawn = _special(special, seed, name)
            own = special.outcome[rows]
        else:
            value, drawn = _mean(own, [credits.groups[row] for row in rows], seed, name)
        draws[name] = drawn
        unjudged = int(np.isnan(own).sum())
        level = percentile_interval(value, drawn)
        found.append(SubsetScore(name, len(rows), unjudged, level, (chance or {}).get(name)))
    return found, draws


def totals(
    scores: Mapping[str, float], draws: Mapping[str, Draws], weights: Weights, *, level: float = 0.95
) -> dict[str, Interval]:
    """Weighted sums of subset scores with their intervals; subsets are resampled independently of each other."""
    found = {}
    for name, parts in weights.items():
        value = sum(weight * scores[subset] for subset, weight in parts.items())
        drawn = np.sum([weight * draws[subset] for subset, weight in parts.items()], axis=0)
        found[name] = percentile_interval(float(value), np.asarray(drawn), level)
    return found


def compare(first: Credits, second: Credits, weights: Weights, *, seed: int = 0) -> list[Difference]:
    """First less second for every subset and total, on the rows that both judged: interval, exact sign test, Holm.

    Both are resampled alike, so that what is hard for both cancels. A total's sign test counts all rows of its subsets
    alike. Raises GuerdonError for different rows.
    """
    if list(first.subsets) != list(second.subsets) or list(first.groups) != list(second.groups):
        raise GuerdonError("two subjects are compared on the same rows; these differ")
    values, draws, outcomes = {}, {}, {}
    for name in first.names():
        rows = first.rows(name)
        if name in first.special:
            one, other = first.special[name], second.special[name]
            (a, drawn_a), (b, drawn_b) = _special(one, seed, name), _special(other, seed, name)
            values[name], draws[name] = a - b, drawn_a - drawn_b
            outcomes[name] = (one.outcome[rows], other.outcome[rows])
        else:
            a_rows, b_rows = first.credit[rows], second.credit[rows]
            values[name], draws[name] = _mean(a_rows - b_rows, [first.groups[row] for row in rows], seed, name)
            outcomes[name] = (a_rows, b_rows)
    tests = {name: sign_test(*both) for name, both in outcomes.items()}
    adjusted = holm([test.p for test in tests.values()])
    found = [
        Difference(name, percentile_interval(values[name], draws[name]), tests[name], p)
        for name, p in zip(tests, adjusted, strict=True)
    ]
    for name, interval in totals(values, draws, weights).items():
        sides = [np.concatenate([outcomes[subset][side] for subset in weights[name]]) for side in (0, 1)]
        found.append(Difference(name, interval, sign_test(sides[0], sides[1])))
    return found


def _mean(credit: NDArray[np.float64], groups: Sequence[str], seed: int, name: str) -> tuple[float, Draws]:
    known = ~np.isnan(credit)
    if not known.any():
        return float("nan"), np.full(RESAMPLES, np.nan)
    index = group_index([group for group, keep in zip(groups, known) if keep], int(known.sum()))
    sums, sizes = np.bincount(index, weights=credit[known]), np.bincount(index).astype(np.float64)
    drawn = _drawn(len(sums), seed, name, lambda counts: (counts @ sums) / (counts @ sizes))
    return float(credit[known].mean()), drawn


def _special(special: Special, seed: int, name: str) -> tuple[float, Draws]:
    value = float(special.score(np.ones((1, special.groups)))[0])
    return value, _drawn(special.groups, seed, name, special.score)


def _drawn(groups: int, seed: int, name: str, statistic: Callable[[Draws], Draws]) -> Draws:
    """The statistic of each resample; the resamples depend on seed, subset and number of groups alone."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    block = max(1, _CELLS // groups)
    parts = []
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        places = rng.integers(groups, size=(size, groups)) + groups * np.arange(size)[:, None]
        counts = np.bincount(places.ravel(), minlength=size * groups).reshape(size, groups)
        parts.append(statistic(counts.astype(np.float64)))
    return np.concatenate(parts)
