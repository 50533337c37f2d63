"""How well scores tell generated texts from human ones, where many generated texts stand against one human text.

The sets that detectors are graded by hold one file for each generating model, and the human side of these files is the
same: intervals resample human texts, each with all that stands against it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guerdon.core.errors import GuerdonError
from guerdon.metrics.detection import auroc
from guerdon.metrics.intervals import Interval, percentile_interval

_CELLS = 2_000_000  # weights held at a time

__all__ = ["ScoredTexts", "mean_auroc", "threshold_at_fpr"]


def threshold_at_fpr(human: ArrayLike, fpr: float = 0.01) -> float:
    """The lowest threshold that at most a share ``fpr`` of the ``human`` scores [N] lies above.

    -inf where all may. A text counts as generated if it scores strictly above: `tpr_at_fpr` flags the same. With fewer
    than 1 / fpr human texts none may, and the threshold is their highest score. Raises GuerdonError for no scores, a
    nan, or an fpr outside [0, 1].
    """
    scores = np.sort(np.asarray(human, dtype=np.float64))[::-1]
    if scores.ndim != 1 or not scores.size or np.isnan(scores).any():
        raise GuerdonError("a threshold needs the scores [N] of human texts, without nan")
    if not 0 <= fpr <= 1:
        raise GuerdonError(f"fpr must lie in [0, 1]; got {fpr}")
    allowed = math.floor(fpr * scores.size + 1e-9)  # as in `guerdon.metrics.detection.tpr_at_fpr`
    return -math.inf if allowed >= scores.size else float(scores[allowed])


@dataclass(frozen=True)
class ScoredTexts:
    """Scores of N pairs: ``generated`` and ``human`` float64 [N], nan where there is none; ``groups`` [N] names the
    human text of each pair, the same name wherever it stands."""

    generated: NDArray[np.float64]
    human: NDArray[np.float64]
    groups: NDArray[np.str_]

    def __post_init__(self) -> None:
        if not self.generated.shape == self.human.shape == self.groups.shape or self.generated.ndim != 1:
            raise GuerdonError("scored texts need generated, human and groups [N] of one length")

    def auroc(self) -> float:
        """P(a generated text scores above a human one) + half P(tie), over those that have a score; nan without."""
        positive, negative = (side[~np.isnan(side)] for side in (self.generated, self.human))
        return auroc(positive, negative) if positive.size and negative.size else float("nan")

    def resampled(self, weights: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
        """The same [R] under weights [R, G] of the G groups, of which ``groups`` [N] says each pair's; nan where one
        side has no weight."""
        sides = [~np.isnan(side) for side in (self.generated, self.human)]
        scores = np.concatenate([self.generated[sides[0]], self.human[sides[1]]])
        if not scores.size:
            return np.full(len(weights), np.nan)
        order = np.argsort(scores, kind="stable")
        columns = np.concatenate([groups[sides[0]], groups[sides[1]]])[order]
        positive = order < sides[0].sum()
        starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
        found = np.empty(len(weights))
        step = max(1, _CELLS // scores.size)
        for begin in range(0, len(weights), step):
            mass = weights[begin : begin + step][:, columns]
            above = np.add.reduceat(mass * positive, starts, axis=1)
            below = np.add.reduceat(mass * ~positive, starts, axis=1)
            won = (above * (np.cumsum(below, axis=1) - 0.5 * below)).sum(1)
            with np.errstate(invalid="ignore"):
                found[begin : begin + step] = won / (above.sum(1) * below.sum(1))
        return found


def mean_auroc(
    sets: Sequence[ScoredTexts],
    against: Sequence[ScoredTexts] | None = None,
    *,
    resamples: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean over sets of their AUROC, with an interval that resamples human texts across all sets at once.

    against: another judge's scores of the same sets: then the difference, first less second, in the same resamples.
    Sets of which a resample holds nothing are left out of its mean. Raises GuerdonError for no sets, or another number
    against them.
    """
    if not sets or against is not None and len(against) != len(sets):
        raise GuerdonError(f"{len(sets)} sets of scores against {0 if against is None else len(against)}")
    names = np.unique(np.concatenate([one.groups for one in sets]))
    places = [np.searchsorted(names, one.groups) for one in sets]
    drawn = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    weights = np.stack([np.bincount(row, minlength=len(names)) for row in drawn]).astype(np.float64)
    values, draws = [], []
    for number, (one, place) in enumerate(zip(sets, places, strict=True)):
        value, draw = one.auroc(), one.resampled(weights, place)
        if against is not None:
            other = against[number]
            value, draw = value - other.auroc(), draw - other.resampled(weights, place)
        values.append(value)
        draws.append(draw)
    value, *resampled = _column_means(np.column_stack([values, np.stack(draws)]))
    return percentile_interval(value, np.array(resampled), level)


def _column_means(table: NDArray[np.float64]) -> list[float]:
    """Means over rows [S, C] -> C of what is there; nan for a column of nothing."""
    there = ~np.isnan(table)
    sums, counts = np.where(there, table, 0.0).sum(0), there.sum(0)
    return [float(total / count) if count else float("nan") for total, count in zip(sums, counts)]
