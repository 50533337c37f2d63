"""Distances between rewards from samples: transitions of a simulator, or several completions of each prompt.

A language model's or image generator's reward is the case of one step, with nothing after it: shaping is then an offset
a prompt, c(x, y) = r(x, y) - E_{y' ~ pi}[r(x, y')], and the distance is that of STARC with the value of the policy that
wrote the completions. It knows nothing of completions that this policy does not write.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guerdon.core.errors import GuerdonError
from guerdon.metrics.intervals import Interval, group_index, percentile_interval

__all__ = [
    "GroupMoments",
    "canonical_distance",
    "group_distance",
    "group_distance_interval",
    "group_moments",
    "sampled_epic",
    "sampled_starc",
]

PROPORTIONAL = 1e-14
"""Squared distances below this are what rounding leaves of proportional rewards."""

RewardFunction = Callable[[Any, Any, Any], ArrayLike]
"""r(s, a, s') of N states, actions and next states: [N]."""


def sampled_starc(
    reward: RewardFunction,
    states: Any,
    actions: Any,
    next_states: Any,
    value: Callable[[Any], ArrayLike],
    discount: float,
) -> NDArray[np.float64]:
    """VAL canonical rewards of N sampled (s, a): mean over K next states of r + gamma V(s') - V(s), [N].

    reward:        r(s, a, s') -> [N]; asked once for every k.
    states, actions:  arrays of N rows, (s, a) from the distribution in which distances are meant.
    next_states:   [N, K, ...], K draws of s' ~ tau(s, a); K = 1 is exact where the process is deterministic.
    value:         V(s) -> [N] of one fixed policy under this same reward, exact or learnt.

    Noise of V, and of next states beside K = 1, does not cancel and enters the norm as |noise|: even a reward and its
    own shaping come out apart. Two independent canonicalisations of one reward give that floor by `canonical_distance`.
    Source: STARC's experiments on continuous processes (VAL); norms as sampled in lucyfarnik/starc.
    """
    following = np.asarray(next_states)
    if following.ndim < 2 or not following.shape[1] or len(following) != len(states):
        raise GuerdonError(f"next_states must be [N, K, ...] for {len(states)} states; got {list(following.shape)}")
    here = np.asarray(value(states), dtype=np.float64)
    drawn = [
        np.asarray(reward(states, actions, following[:, k]), dtype=np.float64)
        + discount * np.asarray(value(following[:, k]), dtype=np.float64)
        for k in range(following.shape[1])
    ]
    found = np.mean(drawn, axis=0) - here
    if found.shape != (len(states),) or not np.isfinite(found).all():
        raise GuerdonError(f"reward and value must give {len(states)} finite numbers; got shape {list(found.shape)}")
    return found


def sampled_epic(
    reward: RewardFunction,
    states: Any,
    actions: Any,
    next_states: Any,
    mean_actions: Any,
    mean_states: Any,
    discount: float,
) -> NDArray[np.float64]:
    """EPIC canonical rewards of N transitions, [N], with expectations over M draws of (A, S').

    C = R(s, a, s') + gamma m(s') - m(s) - gamma mean of m, m(s) = mean over the draws of R(s, A, S').

    states, actions, next_states:  N rows each. mean_actions, mean_states: M rows, A ~ D_A and S' ~ D_S independent; the
    last term takes S from the same M states. Calls the reward 2 N + M times with M rows each.
    Source: EPIC (arXiv 2006.13900), Definition 4.2 and its sample form. Distances: `canonical_distance`, in [0, 2],
    or half of it for the published scale where the N transitions come from the coverage distribution.
    """
    draws = len(mean_states)
    if not draws or len(mean_actions) != draws:
        raise GuerdonError(f"mean_actions and mean_states pair up; got {len(mean_actions)} and {draws} rows")

    def mean(places: Any) -> NDArray[np.float64]:
        rows = [np.repeat(np.asarray(place)[None], draws, axis=0) for place in places]
        return np.array([float(np.mean(np.asarray(reward(row, mean_actions, mean_states)))) for row in rows])

    own = np.asarray(reward(states, actions, next_states), dtype=np.float64)
    if own.shape != (len(states),):
        raise GuerdonError(f"reward must give {len(states)} numbers; got shape {list(own.shape)}")
    return own + discount * mean(next_states) - mean(states) - discount * float(mean(mean_states).mean())


def canonical_distance(first: ArrayLike, second: ArrayLike, p: float = 2.0) -> float:
    """|c1 / n(c1) - c2 / n(c2)| with n the mean of |x|^p to the power 1/p over the same N samples, in [0, 2].

    A side that is 0 throughout stays 0: 1 from any other, 0 from itself. Source: STARC's sampled norms.
    """
    made = []
    for values in (first, second):
        row = np.asarray(values, dtype=np.float64)
        if row.ndim != 1 or not row.size or not np.isfinite(row).all():
            raise GuerdonError(f"canonical rewards must be a finite, non-empty [N]; got shape {list(row.shape)}")
        size = float(np.mean(np.abs(row) ** p) ** (1 / p))
        made.append(row / size if size else row)
    if made[0].shape != made[1].shape:
        raise GuerdonError(f"both sides need the same samples; got {made[0].size} and {made[1].size}")
    return float(np.mean(np.abs(made[0] - made[1]) ** p) ** (1 / p))


@dataclass(frozen=True)
class GroupMoments:
    """Within-prompt variances and covariance of two rewards, [G] each; a prompt's are unbiased (n - 1).

    Prompts of one completion tell nothing and are left out.
    """

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    both: NDArray[np.float64]


def group_moments(first: ArrayLike, second: ArrayLike, groups: ArrayLike) -> GroupMoments:
    """`GroupMoments` of scores [N] of the same completions, ``groups`` [N] their prompts; rows with a nan are left out.

    Raises GuerdonError for shapes, an infinite score, or no prompt with two completions that both score.
    """
    a, b = (np.asarray(side, dtype=np.float64) for side in (first, second))
    if a.ndim != 1 or a.shape != b.shape:
        raise GuerdonError(f"both rewards score the same [N] rows; got {list(a.shape)} and {list(b.shape)}")
    index = group_index(groups, a.size)
    kept = ~(np.isnan(a) | np.isnan(b))
    a, b, index = a[kept], b[kept], index[kept]
    if np.isinf(a).any() or np.isinf(b).any():
        raise GuerdonError("a score is infinite")
    counts = np.bincount(index)
    usable = np.flatnonzero(counts > 1)
    if not usable.size:
        raise GuerdonError("no prompt has two completions that both rewards score")

    def centred(values: NDArray[np.float64]) -> NDArray[np.float64]:
        means = np.bincount(index, weights=values) / np.maximum(counts, 1)
        left = values - means[index]
        # A constant prompt is constant, whatever rounding says of its mean.
        largest = np.zeros(counts.size)
        np.maximum.at(largest, index, np.abs(values))
        return np.where(np.abs(left) <= 1e-15 * counts[index] * largest[index], 0.0, left)

    c, d = centred(a), centred(b)
    first_var, second_var, both = (
        np.bincount(index, weights=x * y)[usable] / (counts[usable] - 1) for x, y in ((c, c), (d, d), (c, d))
    )
    return GroupMoments(first_var, second_var, both)


def group_distance(first: ArrayLike, second: ArrayLike, groups: ArrayLike) -> float:
    """Distance in [0, 2] of two rewards from scores [N] of the same completions, free of offsets a prompt and of scale.

    |c1 / n(c1) - c2 / n(c2)| in L2, c = r less its prompt's mean, every prompt of the same weight and n - 1 for n
    completions: sqrt(2 - 2 rho), rho the pooled within-prompt correlation. 0: one is the other times a positive number
    plus something of the prompt alone; sqrt(2): unrelated; 2: opposite; 1: one of them tells no completions apart.
    The order within every prompt may be the same at a distance above 0: this compares amounts, not only order.
    Source: STARC's VAL, reduced to one step; own reduction. Errors as `group_moments`.
    """
    return _distance(*_sums(group_moments(first, second, groups)))


def group_distance_interval(
    first: ArrayLike,
    second: ArrayLike,
    groups: ArrayLike,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """`group_distance` with its bootstrap interval over prompts; same errors."""
    moments = group_moments(first, second, groups)
    columns = np.stack([moments.first, moments.second, moments.both])
    rng = np.random.default_rng(seed)
    draws = np.empty(resamples)
    for r in range(resamples):
        draws[r] = _distance(*columns[:, rng.integers(columns.shape[1], size=columns.shape[1])].sum(axis=1))
    return percentile_interval(_distance(*_sums(moments)), draws, level)


def _sums(moments: GroupMoments) -> tuple[float, float, float]:
    return float(moments.first.sum()), float(moments.second.sum()), float(moments.both.sum())


def _distance(first: float, second: float, both: float) -> float:
    if first <= 0 or second <= 0:
        return float(first > 0) if second <= 0 else float(second > 0)
    product = math.sqrt(first) * math.sqrt(second)
    squared = 2 - 2 * both / product
    return math.sqrt(squared) if squared > PROPORTIONAL else 0.0
