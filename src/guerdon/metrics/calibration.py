"""Do stated probabilities come true? On preference pairs: is the pair right as often as sigmoid(gap) says?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from guerdon.core.errors import GuerdonError
from guerdon.metrics.intervals import Interval, bootstrap_mean, group_index
from guerdon.metrics.pair_accuracy import pair_outcomes

__all__ = ["Bin", "brier", "expected_calibration_error", "pair_probabilities", "reliability"]


def pair_probabilities(chosen: ArrayLike, rejected: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a Bradley-Terry model says of pairs: (sigmoid(|gap|), was the higher side the chosen one), each [N].

    Probabilities lie in [0.5, 1]; the outcome is 1, 0, or 0.5 for equal scores. The order of a stored pair is its
    label, so sigmoid(chosen - rejected) against an outcome that is always 1 would call every honest model
    miscalibrated; the higher side's probability does not know the label. Raises GuerdonError as `pair_outcomes`.
    """
    outcome = pair_outcomes(chosen, rejected)
    return expit(np.abs(np.asarray(chosen, dtype=np.float64) - np.asarray(rejected, dtype=np.float64))), outcome


@dataclass(frozen=True)
class Bin:
    """Predictions in (low, high] (the first bin holds 0 too): how many, their mean, and the share that came true."""

    low: float
    high: float
    count: int
    prob: float
    outcome: Interval


def reliability(
    prob: ArrayLike, outcome: ArrayLike, bins: int = 10, *, groups: ArrayLike | None = None, resamples: int = 1000
) -> list[Bin]:
    """The reliability table: ``bins`` bins of equal width over [0, 1], empty ones left out.

    prob: [N] in [0, 1]. outcome: [N] in [0, 1] (1 = it came true, 0.5 = half). groups: [N], resampled as a whole for
    the outcomes' 95% intervals.

    Source: DeGroot and Fienberg (1983). Raises GuerdonError for shapes, values out of range, or bins < 1.
    """
    p, y, place = _binned(prob, outcome, bins)
    index = group_index(groups, p.size)
    table = []
    for number in np.unique(place):
        rows = place == number
        came = bootstrap_mean(y[rows], groups=index[rows], resamples=resamples)
        table.append(Bin(number / bins, (number + 1) / bins, int(rows.sum()), float(p[rows].mean()), came))
    return table


def expected_calibration_error(prob: ArrayLike, outcome: ArrayLike, bins: int = 10) -> float:
    """Mean over predictions of |mean probability - share that came true| of their bin, in [0, 1]; 0 = calibrated.

    Arguments and errors as `reliability`. Biased upwards by sampling, about sqrt(bins / N) / 3: compare models on the
    same pairs. Source: Naeini et al. (2015); Guo et al. (2017), eq. 3.
    """
    p, y, place = _binned(prob, outcome, bins)
    return float(np.abs(np.bincount(place, weights=p - y)).sum() / p.size)


def brier(prob: ArrayLike, outcome: ArrayLike) -> float:
    """Mean of y (1 - p)^2 + (1 - y) p^2, in [0, 1]; 0.25 for always saying 1/2. An outcome of 1/2 is half of each.

    For y in {0, 1} this is the usual mean squared error. Arguments and errors as `reliability`. Source: Brier (1950).
    """
    p, y = _checked(prob, outcome)
    return float((y * (1 - p) ** 2 + (1 - y) * p**2).mean())


def _binned(
    prob: ArrayLike, outcome: ArrayLike, bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    if bins < 1:
        raise GuerdonError(f"bins must be at least 1; got {bins}")
    p, y = _checked(prob, outcome)
    inner = np.arange(1, bins) / bins
    return p, y, np.searchsorted(inner, p, side="left")


def _checked(prob: ArrayLike, outcome: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    p, y = np.asarray(prob, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    if p.ndim != 1 or not p.size or p.shape != y.shape:
        raise GuerdonError(f"prob and outcome must be the same non-empty [N]; got {list(p.shape)} and {list(y.shape)}")
    for name, values in (("prob", p), ("outcome", y)):
        wrong = ~((values >= 0) & (values <= 1))
        if wrong.any():
            place = int(wrong.argmax())
            raise GuerdonError(f"{name} must lie in [0, 1]; got {values[place]:g} at index {place}")
    return p, y
