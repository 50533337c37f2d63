"""How wrong a reward is: what noise did to it, and how a reward model stands to the truth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from guerdon.core.errors import GuerdonError


@dataclass(frozen=True)
class NoiseRates:
    """What noise did to ``samples`` rewards; nan where there was nothing of that kind.

    changed: share of rewards that differ from what was earned. false_negatives: share of the right answers that were
    paid as wrong. false_positives: share of the wrong answers that were paid as right. All in [0, 1].
    """

    samples: int
    changed: float
    false_negatives: float
    false_positives: float


def noise_rates(earned: ArrayLike, paid: ArrayLike, *, threshold: float = 0.5) -> NoiseRates:
    """Rates of noise between rewards earned [N] and rewards paid [N]; right is what lies above ``threshold``.

    Raises GuerdonError for different shapes or values that are not finite.
    """
    true, said = _checked(earned, paid)
    right, called = true > threshold, said > threshold
    return NoiseRates(len(true), _share(true != said), _share(~called[right]), _share(called[~right]))


@dataclass(frozen=True)
class RewardStatistics:
    """accuracy: share of answers that the reward puts on their side of the threshold. variance: of the scores
    (population). near: share of scores within the margin of the threshold, where they say little. rates: the errors."""

    accuracy: float
    variance: float
    near: float
    rates: NoiseRates


def reward_statistics(
    scores: ArrayLike, right: ArrayLike, *, threshold: float = 0.5, margin: float = 0.1
) -> RewardStatistics:
    """How useful a noisy reward model may be, from scores [N] and whether each answer is right [N].

    Two reward models of one accuracy are not equally useful: arXiv 2505.22653, section 3.3, ties that to the variance
    of the scores as well (0.194, 0.116 and 0.067 for models of 85, 75 and 65% accuracy). Raises GuerdonError as
    `noise_rates`, and for a negative margin.
    """
    if margin < 0:
        raise GuerdonError(f"the margin around a threshold must not be negative, got {margin}")
    said, true = _checked(scores, right)
    called = said > threshold
    rates = NoiseRates(
        len(said), _share(called != (true > 0.5)), _share(~called[true > 0.5]), _share(called[true <= 0.5])
    )
    near = _share(np.abs(said - threshold) <= margin)
    return RewardStatistics(1 - rates.changed, float(said.var()) if len(said) else math.nan, near, rates)


def _checked(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise GuerdonError(f"two lists of one length are compared, got {list(a.shape)} and {list(b.shape)}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise GuerdonError("rewards that are compared must be finite: leave out rows without a score")
    return a, b


def _share(flags: np.ndarray) -> float:
    return float(flags.mean()) if flags.size else math.nan
