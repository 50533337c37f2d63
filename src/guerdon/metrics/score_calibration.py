"""From scores to probabilities, class by class, so that a score means the same in every class; and whether it does.

Every calibrator has `fit(score, label)` and `predict(score)`: scores in [0, 1], labels 0 or 1, [N]. Which of two scores
of a class is higher need not survive a calibrator (steps tie, histograms may cross): rank by `rank_kept`.

Sources: Dave et al. (2021), arXiv 2102.01066, section 5 (calibration raises AP-Pool); each method names its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit, gammaln, log_expit, logit, softmax
from scipy.stats import rankdata
from sklearn.isotonic import IsotonicRegression

from guerdon.core.errors import GuerdonError, unknown
from guerdon.metrics.average_precision import average_precision
from guerdon.metrics.calibration import expected_calibration_error
from guerdon.metrics.intervals import group_index

__all__ = [
    "CALIBRATORS", "BayesianBinning", "Beta", "Calibrator", "Histogram", "Isotonic", "PerGroup", "Platt",
    "PooledRanking", "Temperature", "calibrator", "group_calibration_error", "pooled_ranking", "rank_kept",
]  # fmt: skip

Floats = NDArray[np.float64]
Fallback = Literal["zero", "keep", "borrow"]
# Scores of exactly 0 and 1 have no log-odds; detectors round to about 1e-6.
EDGE = 1e-9


class Calibrator(Protocol):
    """Learns what share of scores comes true. ``fit`` raises GuerdonError for what lies outside [0, 1], or no rows."""

    def fit(self, score: ArrayLike, label: ArrayLike) -> Self: ...

    def predict(self, score: ArrayLike) -> Floats: ...


class Histogram:
    """The share that came true in each of ``bins`` bins of equal width over [0, 1]; an empty bin says its middle.

    Source: Zadrozny and Elkan (2001). UNVERIFIED: what an empty bin says. 20 bins are Dave et al.'s.
    """

    def __init__(self, bins: int = 20) -> None:
        if bins < 1:
            raise GuerdonError(f"bins must be at least 1; got {bins}")
        self.bins = bins

    def fit(self, score: ArrayLike, label: ArrayLike) -> Self:
        s, y = _rows(score, label)
        count = np.bincount(self._bin(s), minlength=self.bins)
        true = np.bincount(self._bin(s), weights=y, minlength=self.bins)
        middle = (np.arange(self.bins) + 0.5) / self.bins
        self.share_ = np.where(count > 0, true / np.maximum(count, 1), middle)
        return self

    def predict(self, score: ArrayLike) -> Floats:
        return self.share_[self._bin(_scores(score))]

    def _bin(self, score: Floats) -> NDArray[np.int64]:
        return np.searchsorted(np.arange(1, self.bins) / self.bins, score, side="left")


class Isotonic:
    """The rising step function nearest to the labels. Source: Zadrozny and Elkan (2002); scikit-learn's."""

    def fit(self, score: ArrayLike, label: ArrayLike) -> Self:
        s, y = _rows(score, label)
        self.model_ = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(s, y)
        return self

    def predict(self, score: ArrayLike) -> Floats:
        return self.model_.predict(_scores(score))


class Platt:
    """sigmoid(a logit(score) + b), a >= 0, fitted to labels drawn in by Platt's counts.

    Source: Platt (1999), on the log-odds as Dave et al. do. DEVIATION: a slope that turns the ranking is held at 0.
    """

    def fit(self, score: ArrayLike, label: ArrayLike) -> Self:
        s, y = _rows(score, label)
        self.weights_ = _logistic(self._features(s), y)
        return self

    def predict(self, score: ArrayLike) -> Floats:
        return expit(self._features(_scores(score)) @ self.weights_)

    def _features(self, score: Floats) -> Floats:
        return np.stack([logit(score.clip(EDGE, 1 - EDGE)), np.ones_like(score)], axis=1)


class Beta(Platt):
    """sigmoid(a ln(score) - b ln(1 - score) + c), a, b >= 0. Source: Kull, Silva Filho and Flach (2017), equation 4."""

    def _features(self, score: Floats) -> Floats:
        inside = score.clip(EDGE, 1 - EDGE)
        return np.stack([np.log(inside), -np.log1p(-inside), np.ones_like(score)], axis=1)


class Temperature(Platt):
    """sigmoid(logit(score) / T), T > 0. Source: Guo et al. (2017)."""

    def _features(self, score: Floats) -> Floats:
        return logit(score.clip(EDGE, 1 - EDGE))[:, None]


class BayesianBinning:
    """BBQ: histograms of equally filled bins, from N^(1/3) / 10 to 10 N^(1/3) of them, averaged by their evidence.

    criterion: "bayes", the marginal likelihood of the paper; "aic" or "bic", exp(-criterion / 2), as the released
    configurations of Dave et al. choose. Source: Naeini, Cooper and Hauskrecht (2015), equations 1 to 3, N' = 2.
    """

    def __init__(self, criterion: Literal["bayes", "aic", "bic"] = "bayes") -> None:
        if criterion not in ("bayes", "aic", "bic"):
            raise unknown("criterion", criterion, ("bayes", "aic", "bic"))
        self.criterion = criterion

    def fit(self, score: ArrayLike, label: ArrayLike) -> Self:
        s, y = _rows(score, label)
        order = np.argsort(s, kind="stable")
        s, y = s[order], y[order]
        true = np.concatenate([[0.0], np.cumsum(y)])
        root = len(s) ** (1 / 3)
        sizes = range(max(1, int(root / 10)), min(len(s), int(np.ceil(root * 10))) + 1)
        models, evidence = [], []
        for bins in sizes:
            # A border between equal scores moves to where they begin.
            cuts = np.unique(np.searchsorted(s, s[np.arange(1, bins) * len(s) // bins]))
            ends = np.concatenate([[0], cuts[cuts > 0], [len(s)]])
            borders = np.concatenate([[0.0], (s[ends[1:-1] - 1] + s[ends[1:-1]]) / 2, [1.0]])
            count, right = np.diff(ends), np.diff(true[ends])
            prior = 2 / len(count)
            middle = ((borders[:-1] + borders[1:]) / 2).clip(EDGE, 1 - EDGE)
            share = (right + prior * middle) / (count + prior)
            models.append((borders[1:-1], share))
            evidence.append(self._evidence(count, right, prior, middle, share))
        weights = softmax(evidence)
        self.models_ = [(*model, weight) for model, weight in zip(models, weights, strict=True) if weight > 1e-9]
        return self

    def predict(self, score: ArrayLike) -> Floats:
        s = _scores(score)
        mixed = np.zeros(len(s))
        for cuts, share, weight in self.models_:
            mixed += weight * share[np.searchsorted(cuts, s)]
        return mixed / sum(weight for *_, weight in self.models_)

    def _evidence(self, count: NDArray[np.int64], right: Floats, prior: float, middle: Floats, share: Floats) -> float:
        if self.criterion == "bayes":
            alpha, beta = prior * middle, prior * (1 - middle)
            gain = gammaln(prior) - gammaln(count + prior) + gammaln(right + alpha) - gammaln(alpha)
            return float((gain + gammaln(count - right + beta) - gammaln(beta)).sum())
        fit = float((right * np.log(share) + (count - right) * np.log1p(-share)).sum())
        return fit - len(count) * (1.0 if self.criterion == "aic" else float(np.log(count.sum())) / 2)


CALIBRATORS: Mapping[str, Callable[[], Calibrator]] = {
    "histogram": Histogram, "isotonic": Isotonic, "platt": Platt, "beta": Beta, "temperature": Temperature,
    "bbq": BayesianBinning, "bbq-aic": lambda: BayesianBinning("aic"), "bbq-bic": lambda: BayesianBinning("bic"),
}  # fmt: skip


def calibrator(name: str) -> Calibrator:
    """A calibrator by name, not yet fitted. Raises GuerdonError naming the nearest."""
    if name not in CALIBRATORS:
        raise unknown("calibrator", name, CALIBRATORS)
    return CALIBRATORS[name]()


class PerGroup:
    """A calibrator of its own for each group (a detector's class, a judge's task).

    make:      a name of `CALIBRATORS`, or what makes one.
    fallback:  for a group that was not seen or in which nothing came true: "zero" (nothing of it can be believed),
               "keep" the score, or "borrow" the calibrator of its ``parents`` group (a class's frequency).
    parents:   group -> the wider group it belongs to.
    Source: Dave et al. (2021), released configurations ("zero" is theirs).
    """

    def __init__(
        self,
        make: str | Callable[[], Calibrator] = "isotonic",
        *,
        fallback: Fallback = "zero",
        parents: Mapping[int, int] | None = None,
    ) -> None:
        if fallback not in ("zero", "keep", "borrow"):
            raise unknown("fallback", fallback, ("zero", "keep", "borrow"))
        if fallback == "borrow" and parents is None:
            raise GuerdonError("fallback 'borrow' needs parents: which wider group each group belongs to")
        self.make = (lambda: calibrator(make)) if isinstance(make, str) else make
        self.make()
        self.fallback, self.parents = fallback, dict(parents or {})

    def fit(self, score: ArrayLike, label: ArrayLike, group: ArrayLike) -> Self:
        """Fit one for each group [N] of whole numbers in which something came true."""
        s, y = _rows(score, label)
        numbers = _groups(group, len(s))
        self.fitted_ = self._each(s, y, numbers)
        self.wider_: dict[int, Calibrator] = {}
        if self.fallback == "borrow":
            self.wider_ = self._each(s, y, np.array([self.parents.get(int(one), -1) for one in numbers]))
        return self

    def predict(self, score: ArrayLike, group: ArrayLike) -> Floats:
        """Probabilities [N]."""
        s = _scores(score)
        numbers = _groups(group, len(s))
        out = np.zeros_like(s) if self.fallback == "zero" else s.copy()
        for number, rows in _by_group(numbers):
            model = self.fitted_.get(number) or self.wider_.get(self.parents.get(number, -1))
            if model is not None:
                out[rows] = model.predict(s[rows])
        return out

    def _each(self, s: Floats, y: Floats, numbers: NDArray[np.int64]) -> dict[int, Calibrator]:
        return {number: self.make().fit(s[rows], y[rows]) for number, rows in _by_group(numbers) if y[rows].any()}


def rank_kept(calibrated: ArrayLike, score: ArrayLike) -> NDArray[np.int64]:
    """[N] ranks, higher is better: by calibrated score, where these tie by the original one. To rank by only.

    Source: Dave et al. (2021) add offsets of 1e-16 in all, which vanish next to 1; a second key cannot.
    """
    first, second = np.asarray(calibrated, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise GuerdonError(
            f"calibrated and score must be the same [N]; got {list(first.shape)} and {list(second.shape)}"
        )
    order = np.lexsort((second, first))
    steps = (np.diff(first[order]) != 0) | (np.diff(second[order]) != 0)
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.concatenate([[0], np.cumsum(steps)])[: len(order)]
    return ranks


def group_calibration_error(prob: ArrayLike, label: ArrayLike, group: ArrayLike, bins: int = 20) -> float:
    """Mean over groups (that have rows) of their expected calibration error, in [0, 1]. Source: Dave et al. (2021)."""
    p, y = _rows(prob, label)
    groups = _by_group(_groups(group, len(p)))
    return float(np.mean([expected_calibration_error(p[rows], y[rows], bins) for _, rows in groups]))


@dataclass(frozen=True)
class PooledRanking:
    """How one list of scores ranks right above wrong inside groups, and over all of them together; nan: cannot be said.

    within:     P(right above wrong) of two rows of the same group, ties half: what a benchmark a prompt sees.
    across:     the same of two rows of different groups: what a threshold or a global filter lives on.
    group_ap:   mean AP over groups with both kinds of rows. pooled_ap: AP of the one ranking of all rows.
    mixed:      groups that hold both kinds of rows.
    """

    within: float
    across: float
    group_ap: float
    pooled_ap: float
    groups: int
    mixed: int

    @property
    def gap(self) -> float:
        """within - across: what is lost because a score does not mean the same in every group."""
        return self.within - self.across


def pooled_ranking(score: ArrayLike, correct: ArrayLike, group: ArrayLike) -> PooledRanking:
    """AP-Pool's view of a reward: do its scores mean the same for every prompt? [N] scores, right or wrong, prompt.

    Accuracy inside a prompt does not change when a number is added to all scores of a prompt; this does.
    Source: Dave et al. (2021), section 4, with image and class replaced by prompt; P(right above wrong) is
    Mann-Whitney's, split into pairs of one group and pairs of two. Raises GuerdonError for shapes or a nan.
    """
    scores, right = np.asarray(score, dtype=np.float64), np.asarray(correct)
    if scores.ndim != 1 or not scores.size or right.shape != scores.shape:
        raise GuerdonError(
            f"score and correct must be the same non-empty [N]; got {list(scores.shape)}, {list(right.shape)}"
        )
    if np.isnan(scores).any():
        raise GuerdonError(f"score {int(np.isnan(scores).argmax())} is nan; drop failures first")
    if not np.isin(right, (0, 1)).all():
        raise GuerdonError("correct must hold 0 or 1 (right or wrong)")
    right = right.astype(bool)
    numbers = group_index(group, len(scores))
    aps, won, pairs = [], 0.0, 0.0
    for _, rows in _by_group(numbers):
        if right[rows].all() or not right[rows].any():
            continue
        aps.append(float(average_precision(scores[rows], right[rows], int(right[rows].sum()))))
        won, pairs = won + _wins(scores[rows], right[rows]), pairs + _pairs(right[rows])
    all_won, all_pairs = _wins(scores, right), _pairs(right)
    return PooledRanking(
        within=won / pairs if pairs else float("nan"),
        across=(all_won - won) / (all_pairs - pairs) if all_pairs > pairs else float("nan"),
        group_ap=float(np.mean(aps)) if aps else float("nan"),
        pooled_ap=float(average_precision(scores, right, int(right.sum()))),
        groups=int(numbers.max()) + 1,
        mixed=len(aps),
    )


def _wins(scores: Floats, right: NDArray[np.bool_]) -> float:
    """Pairs of a right and a wrong row in which the right one scores higher, ties half."""
    n = int(right.sum())
    return float(rankdata(scores)[right].sum() - n * (n + 1) / 2)


def _pairs(right: NDArray[np.bool_]) -> float:
    return float(right.sum()) * float((~right).sum())


def _logistic(features: Floats, label: Floats) -> Floats:
    """Weights [K] of maximum likelihood; all but those of a constant column at least 0."""
    true = label.sum()
    # Platt's targets: a class that is always right or wrong would ask for infinite weights.
    target = np.where(label == 1, (true + 1) / (true + 2), 1 / (len(label) - true + 2))
    slopes = [not (column == 1).all() for column in features.T]

    def loss(weights: Floats) -> tuple[float, Floats]:
        z = features @ weights
        value = -(target * log_expit(z) + (1 - target) * log_expit(-z)).mean()
        return float(value), features.T @ (expit(z) - target) / len(label)

    start = np.array([1.0 if slope else 0.0 for slope in slopes])
    bounds = [(0.0, None) if slope else (None, None) for slope in slopes]
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"gtol": 1e-7}).x


def _by_group(numbers: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    order = np.argsort(numbers, kind="stable")
    found, start = np.unique(numbers[order], return_index=True)
    return list(zip(found.tolist(), np.split(order, start[1:]))) if len(order) else []


def _groups(group: ArrayLike, rows: int) -> NDArray[np.int64]:
    numbers = np.asarray(group)
    if numbers.shape != (rows,) or numbers.dtype.kind not in "iu":
        raise GuerdonError(f"group must be a whole number for each of the {rows} rows; got {list(numbers.shape)}")
    return numbers.astype(np.int64)


def _scores(score: ArrayLike) -> Floats:
    s = np.asarray(score, dtype=np.float64)
    if s.ndim != 1:
        raise GuerdonError(f"score must be [N]; got shape {list(s.shape)}")
    wrong = ~((s >= 0) & (s <= 1))
    if wrong.any():
        raise GuerdonError(f"scores must lie in [0, 1] to be calibrated; got {s[wrong.argmax()]:g} at {wrong.argmax()}")
    return s


def _rows(score: ArrayLike, label: ArrayLike) -> tuple[Floats, Floats]:
    s, y = _scores(score), np.asarray(label, dtype=np.float64)
    if not s.size or s.shape != y.shape:
        raise GuerdonError(f"score and label must be the same non-empty [N]; got {list(s.shape)} and {list(y.shape)}")
    if not np.isin(y, (0, 1)).all():
        raise GuerdonError("labels must be 0 or 1")
    return s, y
