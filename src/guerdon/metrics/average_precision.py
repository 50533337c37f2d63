"""Average precision: 101 recall levels, one ranking a class or one for a pool of classes, under any cap and resampling.

Precision rises only where something is found, so its envelope needs the true positives and how many detections count
up to each: a class of a million detections and ten objects costs ten numbers a threshold.

Sources: Lin et al. (2014), COCO; Gupta et al. (2019), LVIS; AP-Pool: Dave et al. (2021), arXiv 2102.01066, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guerdon.core.errors import GuerdonError
from guerdon.metrics.detection_matching import MatchTable
from guerdon.metrics.detection_sets import stable_order

__all__ = ["RECALLS", "Curves", "average_precision", "class_curves", "pooled_curves"]

RECALLS = np.linspace(0.0, 1.0, 101)
EPS = float(np.spacing(1))


def average_precision(
    score: ArrayLike, tp: ArrayLike, n_gt: int, ignore: ArrayLike | None = None
) -> NDArray[np.float64]:
    """AP of one ranking, in [0, 1]: precision's envelope from the right, averaged over recall 0, 0.01, ..., 1.

    score: [N]. tp: [..., N] what is right. ignore: [..., N] what does not count. n_gt: how many there are to find, the
    ones never proposed too. Returns [...] (a scalar array for [N]); nan for n_gt = 0. Ties stay as they lie (stable).

    Source: pycocotools' COCOeval.accumulate. Raises GuerdonError for shapes, a nan, or more found than there are.
    """
    scores, right = np.asarray(score, dtype=np.float64), np.asarray(tp, dtype=bool)
    skipped = np.zeros_like(right) if ignore is None else np.broadcast_to(np.asarray(ignore, dtype=bool), right.shape)
    if scores.ndim != 1 or right.shape[-1:] != scores.shape:
        raise GuerdonError(f"score must be [N] and tp [..., N]; got {list(scores.shape)} and {list(right.shape)}")
    if np.isnan(scores).any():
        raise GuerdonError(f"score {int(np.isnan(scores).argmax())} is nan; drop failures first")
    if n_gt == 0 or not scores.size:
        return np.full(right.shape[:-1], 0.0 if n_gt else np.nan)
    order = np.argsort(-scores, kind="stable")
    right, skipped = right[..., order], skipped[..., order]
    found = np.cumsum(right & ~skipped, axis=-1)
    if found.size and found.max() > n_gt:
        raise GuerdonError(f"{int(found.max())} are right, but n_gt says there are {n_gt}")
    precision = found / (np.cumsum(~skipped, axis=-1) + EPS)
    envelope = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    reached = np.pad(envelope, [(0, 0)] * (right.ndim - 1) + [(0, 1)])
    place = np.stack([np.searchsorted(row / n_gt, RECALLS) for row in found.reshape(-1, len(order))])
    return np.take_along_axis(reached.reshape(-1, len(order) + 1), place, axis=1).mean(1).reshape(right.shape[:-1])


@dataclass(frozen=True)
class Curves:
    """Curves of the rankings that have something to find, S of ``count``.

    rankings:   [S] their numbers (of classes; a pool is number 0).
    precision:  [T, S, 101] at recall 0, 0.01, ..., 1. recall: [T, S] the highest one.
    """

    rankings: NDArray[np.int64]
    count: int
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]

    def ap(self, rankings: ArrayLike | None = None, threshold: int | None = None) -> float:
        """Mean precision over thresholds (or at one, by number), recalls and rankings (or some); nan if none."""
        return self._mean(self._mean_precision, rankings, threshold)

    def ar(self, rankings: ArrayLike | None = None, threshold: int | None = None) -> float:
        """Mean of the highest recall, likewise."""
        return self._mean(self.recall, rankings, threshold)

    def each(self) -> NDArray[np.float64]:
        """AP of every ranking, [count]; nan where there is nothing to find."""
        values = np.full(self.count, np.nan)
        values[self.rankings] = self._mean_precision.mean(axis=0)
        return values

    @cached_property
    def _mean_precision(self) -> NDArray[np.float64]:
        return self.precision.mean(axis=2)

    def _mean(self, values: NDArray[np.float64], rankings: ArrayLike | None, threshold: int | None) -> float:
        chosen = values if threshold is None else values[threshold]
        if rankings is not None:
            chosen = chosen[..., np.isin(self.rankings, np.asarray(rankings, dtype=np.int64))]
        return float(chosen.mean()) if chosen.size else float("nan")


def class_curves(
    table: MatchTable, *, area: str = "all", keep: ArrayLike | None = None, weights: ArrayLike | None = None
) -> Curves:
    """One ranking a class: S = C. The mean of its AP is COCO's and LVIS's AP.

    area:     size range of ``table``.
    keep:     mask over the detections that were matched: the cap. `top_per_image` gives LVIS's AP, `top_per_class`
              AP-Fixed, `top_per_image_and_class` COCO's.
    weights:  [images] whole numbers >= 0: how often each image counts (a bootstrap resample).
    """
    rows = np.arange(len(table.row)) if keep is None else np.flatnonzero(np.asarray(keep, dtype=bool)[table.row])
    bounds = np.searchsorted(table.cls[rows], np.arange(table.classes + 1))
    return _curves(table, area, rows, bounds, _to_find(table, area, weights), weights)


def pooled_curves(
    table: MatchTable,
    *,
    classes: ArrayLike | None = None,
    area: str = "all",
    keep: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Curves:
    """One ranking of all detections of some classes (default: all): S = 1. Its AP is AP-Pool.

    Matches stay within their class; only the order and the counts are shared, so scores must mean the same in every
    class. Classes weigh as many objects as they have. Arguments as `class_curves`; ties by image, then class.
    """
    chosen = np.zeros(table.classes, dtype=bool)
    chosen[slice(None) if classes is None else np.asarray(classes, dtype=np.int64)] = True
    mask = chosen[table.cls]
    if keep is not None:
        mask &= np.asarray(keep, dtype=bool)[table.row]
    rows = np.flatnonzero(mask)
    rows = rows[stable_order(table.image[rows])]
    rows = rows[np.argsort(-table.score[rows], kind="stable")]
    n_gt = _to_find(table, area, weights)[chosen].sum(keepdims=True)
    return _curves(table, area, rows, np.array([0, len(rows)]), n_gt, weights)


def _to_find(table: MatchTable, area: str, weights: ArrayLike | None) -> NDArray[np.int64]:
    chosen = table.gt_counted[table.area(area)]
    each = None if weights is None else _weights(table, weights)[table.gt_image[chosen]]
    return np.bincount(table.gt_cls[chosen], weights=each, minlength=table.classes).astype(np.int64)


def _weights(table: MatchTable, weights: ArrayLike) -> NDArray[np.int64]:
    values = np.asarray(weights)
    if values.shape != (table.images,) or values.dtype.kind not in "iu" or (values < 0).any():
        raise GuerdonError(f"weights are whole numbers >= 0, one for each of the {table.images} images")
    return values.astype(np.int64)


def _curves(
    table: MatchTable,
    area: str,
    rows: NDArray[np.int64],
    bounds: NDArray[np.int64],
    n_gt: NDArray[np.int64],
    weights: ArrayLike | None,
) -> Curves:
    """Curves of the rankings rows[bounds[s] : bounds[s + 1]], each best first, with n_gt [S] to find."""
    number = table.area(area)
    some = np.flatnonzero(n_gt)
    precision = np.empty((len(table.thresholds), len(some), len(RECALLS)))
    recall = np.empty((len(table.thresholds), len(some)))
    if not len(some):
        return Curves(some, len(n_gt), precision, recall)
    near, at = _places(table, rows)
    times = np.ones(table.images, dtype=np.int64) if weights is None else _weights(table, weights)
    each = times[table.image[table.near[near]]]
    counts = table.counted[number][rows].astype(np.int64)
    if weights is not None:
        counts *= times[table.image[rows]]
    fallback = counts[at]
    # Detections that count before each, if none found anything; ``change`` is what finding adds or takes away.
    before = np.concatenate([[0], np.cumsum(counts)])
    start = bounds[some]
    first, last = np.searchsorted(at, start), np.searchsorted(at, bounds[some + 1])
    rank = np.arange(len(some))
    place = _needed(n_gt[some])
    for level, hit in enumerate(table.hit[number]):
        state = hit[near]
        right = (state == 1) * each
        change = np.concatenate([[0], np.cumsum(right - (state > 0) * fallback)])
        tp = np.concatenate([[0], np.cumsum(right)])
        many, found = tp[last] - tp[first], np.flatnonzero(right)
        ranking = np.searchsorted(first, found, side="right") - 1
        counted = (before[at[found] + 1] - before[start[ranking]]) + (change[found + 1] - change[first[ranking]])
        if weights is not None:
            # An image drawn n times finds its objects n times in a row.
            copies = each[found]
            ends = np.repeat(np.cumsum(copies), copies)
            counted = np.repeat(counted, copies) - (ends - 1 - np.arange(len(ends)))
            ranking = np.repeat(ranking, copies)
        # One block a ranking: precision at each true positive, then a zero for recalls that are not reached.
        index = np.arange(len(ranking))
        values = np.zeros(len(index) + len(some))
        values[index + ranking] = (index - tp[first][ranking] + 1) / (counted + EPS)
        cuts = (tp[first] + rank)[:, None] + np.minimum(place, many[:, None])
        best = np.maximum.reduceat(values, cuts.ravel()).reshape(cuts.shape)
        precision[level] = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
        recall[level] = many / n_gt[some]
    return Curves(some, len(n_gt), precision, recall)


def _places(table: MatchTable, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which near rows are among ``rows`` (places in ``table.near``), and where there, in the order of ``rows``."""
    if len(rows) == len(table.row) and (len(rows) == 0 or bool((np.diff(rows) == 1).all())):
        return np.arange(len(table.near)), table.near.astype(np.int64)
    inverse = np.full(len(table.row), -1, dtype=np.int64)
    inverse[rows] = np.arange(len(rows))
    at = inverse[table.near]
    near = np.flatnonzero(at >= 0)
    near = near[np.argsort(at[near], kind="stable")]
    return near, at[near]


def _needed(n_gt: NDArray[np.int64]) -> NDArray[np.int64]:
    """[S, 101] how many true positives must go before the one that first reaches each recall, rounded as floats are."""
    many = n_gt[:, None]
    need = np.ceil(RECALLS * many).astype(np.int64)
    need -= (need - 1) / many >= RECALLS
    need += need / many < RECALLS
    return np.maximum(need - 1, 0)
