"""How often a reward model ranks a preference pair right, and what else its scores follow: length, inflation.

Accuracy is computed from scores alone, never with a training margin; equal scores count half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression

from guerdon.core.errors import GuerdonError
from guerdon.metrics.intervals import Interval, bootstrap_mean, group_index

__all__ = [
    "Inflation",
    "ThreeValidations",
    "acc_plus",
    "length_correlation",
    "length_weight",
    "pair_accuracy",
    "pair_outcomes",
    "rank_of",
    "reward_inflation",
    "three_validations",
]


def pair_outcomes(chosen: ArrayLike, rejected: ArrayLike) -> NDArray[np.float64]:
    """1 where the chosen side scores higher, 0.5 where both score the same, else 0; all [N].

    For an interval: ``bootstrap_mean(pair_outcomes(chosen, rejected), groups=prompts)``. Raises GuerdonError for shapes
    that differ, nothing, or a nan.
    """
    first, second = _column(chosen, "chosen scores"), _column(rejected, "rejected scores")
    _same_rows(**{"chosen scores": first, "rejected scores": second})
    return np.where(first == second, 0.5, (first > second).astype(np.float64))


def pair_accuracy(chosen: ArrayLike, rejected: ArrayLike) -> float:
    """Share of pairs ranked right, ties counting half, in [0, 1]; chance and a constant score give 0.5. ``[N]`` each.

    Source: the pairwise accuracy of every card; ties as in IXC-2.5-Reward's pitfalls. Raises as `pair_outcomes`.
    """
    return float(pair_outcomes(chosen, rejected).mean())


def acc_plus(correct: ArrayLike, groups: ArrayLike) -> float:
    """Share of groups of which every pair is ranked right, in [0, 1]; a tie (0.5) is not right.

    correct: [N] in [0, 1] (`pair_outcomes`) or bool. groups: [N], the sample that each pair belongs to.

    Source: MM-RLHF-RewardBench's Acc+ (arXiv 2502.10391), reported by BaseReward. Raises GuerdonError for shapes.
    """
    right = _column(correct, "correct") == 1
    index = group_index(groups, right.size)
    return float((np.bincount(index, weights=~right) == 0).mean())


def length_correlation(scores: ArrayLike, lengths: ArrayLike, control: ArrayLike | None = None) -> float:
    """Spearman correlation of score and length in [-1, 1]; with ``control``, the part that it does not explain.

    Ranks, so that lengths and log-lengths, tokens and characters give nearly the same. Partial: the correlation of the
    residuals after a linear fit of both ranks on the ranks of the control (true quality, say).

    scores, lengths: [N]. control: [N] or [N, m]. nan where either side is constant, or fully explained.

    Source: the audit asked of IXC-2.5-Reward's length constraint (arXiv 2501.12368); partial rank correlation, Kendall
    (1942) on Spearman's ranks. Raises GuerdonError for shapes or a nan.
    """
    score, length = _column(scores, "scores"), _column(lengths, "lengths")
    columns = [np.ones(score.size)]
    _same_rows(scores=score, lengths=length)
    if control is not None:
        given = np.asarray(control, dtype=np.float64)
        for column in given.reshape(len(given), -1).T:
            _same_rows(scores=score, control=_column(column, "control"))
            columns.append(rankdata(column))
    known = np.stack(columns, axis=1)
    left = []
    for values in (score, length):
        ranks = rankdata(values)
        residual = ranks - known @ np.linalg.lstsq(known, ranks, rcond=None)[0]
        if np.linalg.norm(residual) <= 1e-9 * np.linalg.norm(ranks):
            return math.nan
        left.append(residual / np.linalg.norm(residual))
    return float(np.clip(left[0] @ left[1], -1, 1))


def length_weight(
    score_gap: ArrayLike | None, log_length_gap: ArrayLike, *, preferred: ArrayLike | None = None, l2: float = 1e-4
) -> float:
    """b of P(the first answer is preferred) = sigmoid(a score_gap + b log_length_gap): how far preferences buy length.

    0: length decides nothing that the score does not. b = 1.5: twice as long multiplies the odds by 2^1.5.

    Args:
        score_gap: [N], first less second answer in true quality (or the best proxy), or None for length alone.
        log_length_gap: [N], ln(first length) - ln(second length).
        preferred: [N] in [0, 1], 1 where the first answer is preferred, 0.5 for a tie; None: always, which is how
            preference data are written (chosen less rejected).
        l2: weight of the ridge |(a, b)|^2 / 2 beside the mean loss; keeps separable data finite, and no more.
    Returns:
        b in logits a unit of log-length.
    Raises:
        GuerdonError: shapes differ, a nan, or l2 <= 0.
    Source: logistic regression without intercept, equal to a linear Bradley-Terry reward of (score, log length); the
    length weight of the claim check on IXC-2.5-Reward (arXiv 2501.12368).
    """
    if not l2 > 0:
        raise GuerdonError(f"l2 must be > 0; got {l2}")
    length = _column(log_length_gap, "log_length_gap")
    columns = [length] if score_gap is None else [_column(score_gap, "score_gap"), length]
    won = np.ones(length.size) if preferred is None else _column(preferred, "preferred")
    _same_rows(log_length_gap=length, score_gap=columns[0], preferred=won)
    if ((won < 0) | (won > 1)).any():
        raise GuerdonError("preferred must lie in [0, 1]")
    gaps = np.stack(columns, axis=1)
    # Each pair in both classes, weighted by how far it belongs to them: no class is empty, and a tie is half of each.
    model = LogisticRegression(C=1 / (l2 * length.size), fit_intercept=False, tol=1e-8, max_iter=1000)
    model.fit(np.concatenate([gaps, gaps]), np.repeat([1, 0], length.size), np.concatenate([won, 1 - won]))
    return float(model.coef_[0, -1])


@dataclass(frozen=True)
class Inflation:
    """How the level of rewards moved between the first and last evaluation, against the gap that alone matters.

    mean_rise, gap_rise: last less first of (chosen + rejected) / 2 and of chosen - rejected, in reward units.
    gap: the last gap.
    """

    mean_rise: float
    gap_rise: float
    gap: float

    @property
    def ratio(self) -> float:
        """Rise of the level in units of the last gap; scale-free, nan for no gap."""
        return self.mean_rise / abs(self.gap) if self.gap else math.nan

    @property
    def inflated(self) -> bool:
        """The level rose by more than half of the last gap, and by more than the gap did. Thresholds are ours."""
        return self.mean_rise > max(self.gap_rise, 0.5 * abs(self.gap))


def reward_inflation(history: Sequence[tuple[ArrayLike, ArrayLike]]) -> Inflation:
    """Do scores rise while chosen and rejected stay as far apart as they were?

    history: (chosen, rejected) of each evaluation in order, at least two: scores [N] of the same pairs, or their means.

    Source: Secrets of RLHF II (arXiv 2401.06080), appendix A.1; a Bradley-Terry loss fixes rewards only up to a shift.
    Raises GuerdonError for fewer than two evaluations or a value that is not finite.
    """
    if len(history) < 2:
        raise GuerdonError(f"reward inflation compares at least 2 evaluations; got {len(history)}")
    ends = [[float(np.mean(np.asarray(side, dtype=np.float64))) for side in history[place]] for place in (0, -1)]
    if not np.isfinite(ends).all():
        raise GuerdonError("reward inflation needs finite scores in the first and last evaluation")
    (chosen, rejected), (last_chosen, last_rejected) = ends
    gap = last_chosen - last_rejected
    return Inflation((last_chosen + last_rejected - chosen - rejected) / 2, gap - (chosen - rejected), gap)


def rank_of(scores: ArrayLike) -> list[int]:
    """Rank of each score, 0 = best: [1, 3, 2] -> [2, 0, 1]. Equal scores share the better rank, whatever their order.

    Not an argsort. Source: ``rank`` of IXC-2.5-Reward, whose ties go by position. Raises GuerdonError for a nan.
    """
    return (rankdata(-_column(scores, "scores"), method="min").astype(np.int64) - 1).tolist()


@dataclass(frozen=True)
class ThreeValidations:
    """Accuracy against the original labels, a judge's labels, and where both agree; with the number of pairs of each.

    The intervals of a set without pairs are nan.
    """

    original: Interval
    judge: Interval
    agreed: Interval
    pairs: tuple[int, int, int]


def three_validations(
    chosen: ArrayLike,
    rejected: ArrayLike,
    judge: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> ThreeValidations:
    """Pair accuracy on the three validation sets that Secrets of RLHF II reports together.

    Args:
        chosen, rejected: scores [N].
        judge: [N], 1 = the judge prefers the chosen answer, 0 = the rejected, -1 = no label
            (``GPT4 label`` of fnlp/hh-rlhf-strength-cleaned).
        groups: [N], prompts, which are resampled as a whole. resamples, level, seed: of the bootstrap.
    Raises:
        GuerdonError: shapes, a nan, or another label.
    Source: arXiv 2401.06080, section 2 and appendix B.
    """
    outcome, label = pair_outcomes(chosen, rejected), _column(judge, "judge labels")
    _same_rows(**{"chosen scores": outcome, "judge labels": label})
    if not np.isin(label, (-1, 0, 1)).all():
        raise GuerdonError("judge labels must be 1 (chosen), 0 (rejected) or -1 (none)")
    index = group_index(groups, outcome.size)

    def accuracy(values: NDArray[np.float64], rows: NDArray[np.bool_]) -> Interval:
        if not rows.any():
            return Interval(math.nan, math.nan, math.nan, level)
        return bootstrap_mean(values[rows], groups=index[rows], resamples=resamples, level=level, seed=seed)

    everywhere, judged, agreed = np.ones(label.size, dtype=bool), label >= 0, label == 1
    by_judge = np.where(label == 0, 1 - outcome, outcome)
    return ThreeValidations(
        accuracy(outcome, everywhere),
        accuracy(by_judge, judged),
        accuracy(outcome, agreed),
        (label.size, int(judged.sum()), int(agreed.sum())),
    )


def _column(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise GuerdonError(f"{name} must be a non-empty [N] array; got shape {list(array.shape)}")
    if np.isnan(array).any():
        raise GuerdonError(f"{name} hold a nan at index {int(np.isnan(array).argmax())}; drop failures first")
    return array


def _same_rows(**columns: NDArray[np.float64]) -> None:
    if len({column.size for column in columns.values()}) > 1:
        listed = ", ".join(f"{column.size} {name}" for name, column in columns.items())
        raise GuerdonError(f"one row a pair is needed in each column; got {listed}")
