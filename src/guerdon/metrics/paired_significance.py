"""Is one model better than another on the same rows? An exact sign test, and a correction for testing many subsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from guerdon.core.errors import GuerdonError

__all__ = ["SignTest", "holm", "sign_test"]


@dataclass(frozen=True)
class SignTest:
    """Rows on which the first is better, worse and equal, and the two-sided probability of so uneven a split."""

    better: int
    worse: int
    equal: int
    p: float


def sign_test(first: ArrayLike, second: ArrayLike) -> SignTest:
    """Exact two-sided sign test over paired rows [N]: of the rows that differ, is the first better in half?

    For outcomes in {0, 1} it is McNemar's exact test. Rows in which either is NaN are left out; with no row that
    differs p is 1. It counts rows, not by how much they differ, and takes them for independent.

    Source: Dixon and Mood (1946); McNemar (1947), with exact binomial tails. Raises GuerdonError for other shapes.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise GuerdonError(f"a sign test pairs rows [N] with rows [N]; got {list(a.shape)} and {list(b.shape)}")
    known = ~(np.isnan(a) | np.isnan(b))
    better, worse = int((a > b)[known].sum()), int((a < b)[known].sum())
    p = float(binomtest(better, better + worse).pvalue) if better + worse else 1.0
    return SignTest(better, worse, int(known.sum()) - better - worse, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of m tests adjusted so that the chance of any false alarm among them stays at the level, each in [0, 1].

    The k-th smallest is multiplied by m - k + 1, and none is smaller than the ones before it. NaN stays NaN and is not
    counted. Source: Holm (1979). Raises GuerdonError for a value outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or ((p < 0) | (p > 1)).any():
        raise GuerdonError(f"p-values lie in [0, 1]; got {list(p_values)}")
    adjusted = np.full(p.shape, np.nan)
    order = [place for place in np.argsort(p, kind="stable") if not np.isnan(p[place])]
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, float(p[place]) * (len(order) - rank)))
        adjusted[place] = largest
    return adjusted.tolist()
