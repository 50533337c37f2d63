"""How the reward that is meant (gold) moves while the reward that is climbed (proxy) is driven up.

Best-of-n climbs a proxy without training anything: of n answers the one that the proxy likes best is kept. From N
answers of a prompt its expected outcome follows for every n up to N at once, without drawing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from guerdon.core.errors import GuerdonError
from guerdon.metrics.intervals import Interval, bootstrap_mean

__all__ = [
    "Downturn",
    "Fit",
    "best_of_n_kl",
    "best_of_n_values",
    "best_of_n_weights",
    "downturn",
    "fit_gain",
    "sampled_kl",
]

Array = NDArray[np.float64]
Form = Literal["best-of-n", "rl"]


def best_of_n_kl(n: int) -> float:
    """log n - (n - 1) / n, the divergence in nats of best-of-n from the policy that it samples; 0 for n = 1.

    Exact where no two answers get the same reward, an upper bound otherwise (Beirami et al. 2024, arXiv 2401.01879).
    Source: Stiennon et al. 2020 (arXiv 2009.01325), appendix G.3. Raises GuerdonError for n < 1.
    """
    if n < 1:
        raise GuerdonError(f"best-of-n needs n >= 1, got {n}")
    return math.log(n) - (n - 1) / n


@lru_cache(maxsize=4096)
def best_of_n_weights(count: int, n: int) -> Array:
    """Probability that the i-th lowest of ``count`` answers is the highest of n drawn without replacement: [count].

    C(i - 1, n - 1) / C(count, n), in ascending order of the reward. Raises GuerdonError unless 1 <= n <= count.
    """
    if not 1 <= n <= count:
        raise GuerdonError(f"best-of-{n} needs at least {n} answers to a prompt and n >= 1; there are {count}")
    weights = np.zeros(count)
    weights[-1] = n / count
    for place in range(count - 1, n - 1, -1):  # C(i - 2, n - 1) = C(i - 1, n - 1) (i - n) / (i - 1)
        weights[place - 1] = weights[place] * (place + 1 - n) / place
    weights.flags.writeable = False
    return weights


def best_of_n_values(scores: ArrayLike, values: ArrayLike, ns: Sequence[int]) -> Array:
    """Expected value of the answer that best-of-n by ``scores`` keeps, for each n: unbiased, [len(ns)].

    scores, values: [N], what is selected by and what is looked at, of N independent answers to one prompt; equal
    scores win with equal probability. With ``values = scores`` it is the expected best score. Averaging over which n of
    the N are drawn has the least variance of all unbiased estimators from these answers.

    Source: the estimator of Nakano et al. 2021 (arXiv 2112.09332), appendix I, as used by Gao et al. 2023 (arXiv
    2210.10760) for over-optimisation; its treatment of ties is ours. Raises GuerdonError for a nan or an n beyond N.
    """
    by, seen = np.asarray(scores, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if by.ndim != 1 or by.shape != seen.shape or not by.size or np.isnan(by).any() or np.isnan(seen).any():
        raise GuerdonError(
            f"best-of-n needs scores and values [N] without nan; got shapes {list(by.shape)} and {list(seen.shape)}"
        )
    order = np.argsort(by, kind="stable")
    # Each of several equal scores is the highest with the same probability: the mean over their places.
    tied = (rankdata(by[order], method="dense") - 1).astype(np.int64)
    ordered = (np.bincount(tied, weights=seen[order]) / np.bincount(tied))[tied]
    return np.array([float(best_of_n_weights(len(by), n) @ ordered) for n in ns])


def sampled_kl(log_probs: ArrayLike, reference_log_probs: ArrayLike) -> Array:
    """log pi(y) - log pi_ref(y) of answers y sampled from pi: [N] nats an answer; their mean is unbiased for the KL.

    Single values may be negative. Source: Schulman 2020, "Approximating KL divergence" (k1). Raises GuerdonError for
    another shape or a value that is not finite.
    """
    own, reference = np.asarray(log_probs, dtype=np.float64), np.asarray(reference_log_probs, dtype=np.float64)
    if own.ndim != 1 or own.shape != reference.shape or not np.isfinite(own - reference).all():
        raise GuerdonError(
            f"log-probabilities must be finite [N] each; got shapes {list(own.shape)} and {list(reference.shape)}"
        )
    return own - reference


@dataclass(frozen=True)
class Downturn:
    """Whether gold falls again while the proxy goes on rising.

    peak:  place of gold's highest point on the curve. drop: gold there less gold at the last point, above 0 where it
    fell, with its interval over prompts; the peak is chosen on other prompts than those the drop is measured on.
    """

    peak: int
    drop: Interval

    @property
    def over_optimised(self) -> bool | None:
        """True if the whole interval lies above 0, False if none of it does, None where it is open."""
        return True if self.drop.low > 0 else False if self.drop.high <= 0 else None


def downturn(gold: ArrayLike, *, seed: int = 0) -> Downturn:
    """`Downturn` of gold values [prompts, points], points in the order in which the proxy is climbed.

    The highest of several noisy means is too high: the peak for one half of the prompts (drawn by ``seed``) is chosen
    on the other half. Ours. Raises GuerdonError for fewer than two prompts or points, or a nan.
    """
    table = np.asarray(gold, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2 or np.isnan(table).any():
        raise GuerdonError(
            f"a downturn needs gold values of at least 2 prompts at 2 points without nan, got {table.shape}"
        )
    order = np.random.default_rng(seed).permutation(len(table))
    halves = order[::2], order[1::2]
    drops = np.empty(len(table))
    for own, other in (halves, halves[::-1]):
        peak = int(table[other].mean(0).argmax())
        drops[own] = table[own, peak] - table[own, -1]
    return Downturn(int(table.mean(0).argmax()), bootstrap_mean(drops, seed=seed))


@dataclass(frozen=True)
class Fit:
    """gain(d) with d = sqrt(KL): d (alpha - beta d) for best-of-n, d (alpha - beta log d) for "rl".

    r2: share of the gain's variation that the form explains. peak_kl: where the form turns down, nats; inf for never.
    """

    form: Form
    alpha: float
    beta: float
    r2: float
    peak_kl: float


def fit_gain(kl: ArrayLike, gain: ArrayLike, *, form: Form = "best-of-n") -> Fit:
    """Least-squares `Fit` of gold gains [N] over the untouched policy at divergences ``kl`` [N] >= 0 nats.

    A summary, not a law: extrapolate with care. Source: Gao et al. 2023 (arXiv 2210.10760), section 3.1. Raises
    GuerdonError for fewer than three points above 0, or values that are not finite.
    """
    nats, gained = np.asarray(kl, dtype=np.float64), np.asarray(gain, dtype=np.float64)
    if nats.ndim != 1 or nats.shape != gained.shape or not np.isfinite(nats).all() or not np.isfinite(gained).all():
        raise GuerdonError(
            f"a fit needs finite kl and gain [N], got shapes {list(nats.shape)} and {list(gained.shape)}"
        )
    kept = nats > 0
    if kept.sum() < 3:
        raise GuerdonError(f"a fit needs at least three points of positive divergence, got {int(kept.sum())}")
    d, y = np.sqrt(nats[kept]), gained[kept]
    bend = d**2 if form == "best-of-n" else d * np.log(d)
    (alpha, minus_beta), *_ = np.linalg.lstsq(np.stack([d, bend], axis=1), y, rcond=None)
    beta = -float(minus_beta)
    left = float(((y - alpha * d + beta * bend) ** 2).sum())
    total = float(((y - y.mean()) ** 2).sum())
    peak = math.inf
    if beta > 0:
        top = float(alpha) / (2 * beta) if form == "best-of-n" else math.exp(min(float(alpha) / beta - 1, 300.0))
        peak = max(top, 0.0) ** 2
    return Fit(form, float(alpha), beta, 1 - left / total if total > 0 else float("nan"), peak)
