"""Bootstrap intervals that resample prompts, not rows: pictures of one prompt are not independent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guerdon.core.errors import GuerdonError

__all__ = [
    "Interval",
    "bootstrap",
    "bootstrap_mean",
    "bootstrap_two_sample",
    "group_index",
    "paired_difference",
    "percentile_interval",
]


@dataclass(frozen=True)
class Interval:
    """An estimate and its ``level`` bootstrap interval [low, high], in the units of the estimate."""

    value: float
    low: float
    high: float
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def group_index(groups: ArrayLike | None, rows: int) -> NDArray[np.int64]:
    """Group numbers 0..G-1 of every row: ``groups`` [rows] of any sortable type, or None for a group a row."""
    if groups is None:
        return np.arange(rows, dtype=np.int64)
    labels = np.asarray(groups)
    if labels.shape != (rows,):
        raise GuerdonError(f"groups must name a group for each of the {rows} rows; got shape {list(labels.shape)}")
    return np.unique(labels, return_inverse=True)[1].astype(np.int64).reshape(-1)


def percentile_interval(value: float, draws: NDArray[np.float64], level: float = 0.95) -> Interval:
    """`Interval` of ``value`` from bootstrap ``draws`` [R]; nan draws are left out, none left gives nan ends."""
    if not 0 < level < 1:
        raise GuerdonError(f"level must lie in (0, 1); got {level}")
    kept = draws[~np.isnan(draws)]
    if not kept.size:
        return Interval(value, float("nan"), float("nan"), level)
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level)


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float],
    rows: int,
    *,
    groups: ArrayLike | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of ``statistic(row indices)``, resampling whole groups (prompts) with replacement.

    Deterministic in ``seed``. Source: Efron and Tibshirani 1993, chapter 13; whole clusters, Davison and Hinkley 1997,
    section 3.8. Raises GuerdonError for no rows.
    """
    if rows < 1 or resamples < 1:
        raise GuerdonError(f"a bootstrap needs rows and resamples; got {rows} and {resamples}")
    members = _members(group_index(groups, rows))
    rng = np.random.default_rng(seed)
    draws = np.array([statistic(_resample(members, rng)) for _ in range(resamples)])
    return percentile_interval(float(statistic(np.arange(rows))), draws, level)


def bootstrap_mean(
    values: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean of ``values`` [N] with its percentile interval, resampling whole groups; same source as `bootstrap`."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or np.isnan(array).any():
        raise GuerdonError(f"bootstrap_mean needs a non-empty [N] array without nan; got shape {list(array.shape)}")
    index = group_index(groups, array.size)
    sums, counts = np.bincount(index, weights=array), np.bincount(index)
    rng = np.random.default_rng(seed)
    draws = np.empty(resamples)
    for r in range(resamples):
        chosen = rng.integers(sums.size, size=sums.size)
        draws[r] = sums[chosen].sum() / counts[chosen].sum()
    return percentile_interval(float(array.mean()), draws, level)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean of first - second over paired rows ``[N]``, with its interval; far narrower than two separate intervals."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise GuerdonError(f"paired rows differ in shape: {list(a.shape)} and {list(b.shape)}")
    return bootstrap_mean(a - b, groups=groups, resamples=resamples, level=level, seed=seed)


def bootstrap_two_sample(
    statistic: Callable[[NDArray[np.int64], NDArray[np.int64]], float],
    rows: tuple[int, int],
    *,
    groups: tuple[ArrayLike | None, ArrayLike | None] = (None, None),
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """`bootstrap` of a statistic of two unpaired sets of rows, each resampled by its own groups.

    Source: Efron and Tibshirani 1993, section 8.3 (two-sample problem).
    """
    if min(rows) < 1 or resamples < 1:
        raise GuerdonError(f"a bootstrap needs rows and resamples; got {rows} and {resamples}")
    members = [_members(group_index(labels, count)) for labels, count in zip(groups, rows, strict=True)]
    rng = np.random.default_rng(seed)
    draws = np.array([statistic(_resample(members[0], rng), _resample(members[1], rng)) for _ in range(resamples)])
    return percentile_interval(float(statistic(np.arange(rows[0]), np.arange(rows[1]))), draws, level)


def _members(index: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index))[:-1])


def _resample(members: list[NDArray[np.int64]], rng: np.random.Generator) -> NDArray[np.int64]:
    return np.concatenate([members[g] for g in rng.integers(len(members), size=len(members))])
