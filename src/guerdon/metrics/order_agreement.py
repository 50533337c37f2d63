"""Whether two rewards put the completions of a prompt in the same order, and what it costs to trust the other's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from guerdon.core.errors import GuerdonError
from guerdon.metrics.intervals import Interval, bootstrap_mean, group_index, percentile_interval

__all__ = ["Agreement", "PairCounts", "agreement", "pair_counts", "selection_regret"]


@dataclass(frozen=True)
class PairCounts:
    """Pairs of completions of one prompt, [G] each: ordered alike, ordered the other way, tied by one, tied by both."""

    alike: NDArray[np.int64]
    opposed: NDArray[np.int64]
    one_tie: NDArray[np.int64]
    both_tie: NDArray[np.int64]


@dataclass(frozen=True)
class Agreement:
    """How far two rewards order completions alike within prompts; intervals resample prompts.

    order:         share of the pairs that neither ties which both order alike, in [0, 1]; chance 0.5.
    same_best:     share of prompts of which both choose the same completion, ties shared out; chance 1 / completions.
    spearman, kendall (tau-b), pearson:  mean over prompts, in [-1, 1]; prompts where one is constant are left out.
    first_loses, second_loses:  `selection_regret` of choosing by the other reward.
    pairs:         counts summed over prompts: "alike", "opposed", "one tie", "both tie".
    prompts:       with at least two completions that both score; ``constant`` of these have a constant side.
    """

    order: Interval
    same_best: Interval
    spearman: Interval
    kendall: Interval
    pearson: Interval
    first_loses: Interval
    second_loses: Interval
    pairs: dict[str, int]
    prompts: int
    constant: int


def agreement(
    first: ArrayLike,
    second: ArrayLike,
    groups: ArrayLike,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Agreement:
    """`Agreement` of scores [N] of the same completions, ``groups`` [N] their prompts; rows with a nan are left out.

    Raises GuerdonError for shapes or no prompt with two completions that both score.
    """
    prompts = grouped(first, second, groups)

    def mean(values: Iterable[float]) -> Interval:
        kept = [value for value in values if not math.isnan(value)]
        if not kept:
            return Interval(math.nan, math.nan, math.nan, level)
        return bootstrap_mean(kept, resamples=resamples, level=level, seed=seed)

    counts = _counts(prompts)
    spearman, kendall, pearson = zip(*(_correlations(a, b) for a, b in prompts), strict=True)
    return Agreement(
        order=_ratio(counts.alike, counts.alike + counts.opposed, resamples, level, seed),
        same_best=mean([_same_best(a, b) for a, b in prompts]),
        spearman=mean(spearman),
        kendall=mean(kendall),
        pearson=mean(pearson),
        first_loses=mean([_loss(a, b) for a, b in prompts]),
        second_loses=mean([_loss(b, a) for a, b in prompts]),
        pairs={
            "alike": int(counts.alike.sum()), "opposed": int(counts.opposed.sum()),
            "one tie": int(counts.one_tie.sum()), "both tie": int(counts.both_tie.sum()),
        },
        prompts=len(prompts),
        constant=sum(math.isnan(value) for value in kendall),
    )  # fmt: skip


def pair_counts(first: ArrayLike, second: ArrayLike, groups: ArrayLike) -> PairCounts:
    """`PairCounts` of the prompts that `agreement` looks at; same arguments and errors."""
    return _counts(grouped(first, second, groups))


def selection_regret(own: ArrayLike, other: ArrayLike, groups: ArrayLike) -> float:
    """What ``own`` loses on average where ``other`` picks the best completion, in [0, 1] of its range in each prompt.

    (max own - own at the best by other) / (max own - min own); several best by other count in equal parts. Prompts that
    ``own`` finds all alike are left out, nan where that is all of them. The regret of best-of-n by a proxy, for the n
    that were sampled. Arguments and errors as `agreement`.
    """
    losses = np.array([_loss(a, b) for a, b in grouped(own, other, groups)])
    kept = losses[~np.isnan(losses)]
    return float(kept.mean()) if kept.size else math.nan


Prompts = list[tuple[NDArray[np.float64], NDArray[np.float64]]]


def grouped(first: ArrayLike, second: ArrayLike, groups: ArrayLike) -> Prompts:
    """The scores of each prompt that has two completions or more which both rewards score."""
    a, b = (np.asarray(side, dtype=np.float64) for side in (first, second))
    if a.ndim != 1 or a.shape != b.shape:
        raise GuerdonError(f"both rewards score the same [N] rows; got {list(a.shape)} and {list(b.shape)}")
    index = group_index(groups, a.size)
    kept = np.flatnonzero(~(np.isnan(a) | np.isnan(b)))
    order = kept[np.argsort(index[kept], kind="stable")]
    cuts = np.flatnonzero(np.diff(index[order])) + 1
    found = [(a[rows], b[rows]) for rows in np.split(order, cuts) if rows.size > 1]
    if not found:
        raise GuerdonError("no prompt has two completions that both rewards score")
    return found


def _counts(prompts: Prompts) -> PairCounts:
    found = np.zeros((4, len(prompts)), dtype=np.int64)
    for place, (a, b) in enumerate(prompts):
        one, two = _signs(a), _signs(b)
        ties = (one == 0).astype(int) + (two == 0)
        product = one * two
        found[:, place] = [(product > 0).sum(), (product < 0).sum(), (ties == 1).sum(), (ties == 2).sum()]
    return PairCounts(*found)


def _ratio(above: NDArray[np.int64], below: NDArray[np.int64], resamples: int, level: float, seed: int) -> Interval:
    """sum above / sum below with its interval over prompts; nan where there is nothing below."""
    rng = np.random.default_rng(seed)
    draws = np.full(resamples, np.nan)
    for r in range(resamples):
        chosen = rng.integers(above.size, size=above.size)
        if total := below[chosen].sum():
            draws[r] = above[chosen].sum() / total
    return percentile_interval(float(above.sum() / below.sum()) if below.any() else math.nan, draws, level)


def _signs(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Which of every two is larger, [n (n - 1) / 2] of -1, 0, 1."""
    one, two = np.triu_indices(values.size, 1)
    return np.sign(values[one] - values[two])


def _correlations(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float, float]:
    """Spearman's rho, Kendall's tau-b and Pearson's r of one prompt; nan where a side is constant."""
    if (a == a[0]).all() or (b == b[0]).all():
        return math.nan, math.nan, math.nan
    one, two = _signs(a), _signs(b)
    tau = float((one * two).sum()) / math.sqrt(np.count_nonzero(one) * np.count_nonzero(two))
    return _pearson(rankdata(a), rankdata(b)), tau, _pearson(a, b)


def _pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    made = []
    for side in (a, b):
        # Spread to [0, 1] first: neither a large offset nor a small scale costs digits.
        side = (side - side.min()) / (side.max() - side.min())
        side = side - side.mean()
        made.append(side / np.linalg.norm(side))
    return float(np.clip(made[0] @ made[1], -1, 1))


def _same_best(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    one, two = a == a.max(), b == b.max()
    return float((one & two).sum() / (one.sum() * two.sum()))


def _loss(own: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    spread = own.max() - own.min()
    return float((own.max() - own[other == other.max()].mean()) / spread) if spread > 0 else math.nan
