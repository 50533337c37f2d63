"""What calibrating a detector's scores class by class brings: AP-Fixed, AP-Pool, calibration error before and after.

Source: Dave et al. (2021), arXiv 2102.01066, section 5: labels are matches at IoU 0.75; DEVIATION: detections that are
neither right nor wrong (ignored) are no examples, where the released script takes them for one or the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.benchmarks.detection_annotations import Annotations
from guerdon.benchmarks.detection_results import DetectionFile
from guerdon.core.errors import GuerdonError
from guerdon.metrics.average_precision import class_curves, pooled_curves
from guerdon.metrics.calibration import expected_calibration_error
from guerdon.metrics.detection_matching import MatchTable
from guerdon.metrics.detection_sets import Bools, Detections, top_per_class
from guerdon.metrics.score_calibration import PerGroup, group_calibration_error, rank_kept

__all__ = ["CalibratedScores", "calibrate", "calibration_of"]

FIT_AT = 0.75
BINS = 20


@dataclass(frozen=True)
class CalibratedScores:
    """How well scores tell the chance of being right (at IoU 0.75), and what they rank.

    figures:      "ECE", "ECE per class", "ECE r/c/f", and after calibration AP-Fixed, AP-Pool, AP-Poolr/c/f.
    reliability:  (mean score, share that was right, detections) of each bin that holds any.
    """

    method: str
    figures: dict[str, float]
    reliability: Sequence[tuple[float, float, int]]


def calibration_of(annotations: Annotations, table: MatchTable, keep: Bools) -> CalibratedScores | None:
    """Of the raw scores; None where some are no probabilities, or there is nothing to judge by."""
    if not len(table.score) or table.score.min() < 0 or table.score.max() > 1:
        return None
    judged, right = _examples(table, keep)
    return _scored(annotations, table, "raw", table.score, judged, right, {}) if judged.any() else None


def calibrate(
    annotations: Annotations,
    file: DetectionFile,
    table: MatchTable,
    method: str,
    *,
    caps_per_class: int,
    fallback: str,
    folds: int,
    fitted: tuple[MatchTable, Bools] | None,
    seed: int,
    rematch: Callable[[Detections], MatchTable],
) -> CalibratedScores:
    """Fit ``method`` per class, on ``fitted`` (matches of other images, and their cap) or by folds of these images.

    rematch: the file's detections under other scores -> their matches. Equal calibrated scores keep the raw order,
    so one rising map a class leaves AP-Fixed alone; the folds' several maps do not quite, and histograms cross.
    Raises GuerdonError for scores that are no probabilities, or folds that are not in [1, images].
    """
    if not 1 <= folds <= table.images:
        raise GuerdonError(f"folds must lie in 1 to {table.images}, the number of images; got {folds}")
    keep = top_per_class(file.dt, caps_per_class)
    judged, right = _examples(table, keep)
    parents = {c: "rcf".find(letter) for c, letter in enumerate(annotations.frequency) if letter}
    made: Any = PerGroup(method, fallback=fallback, parents=parents)  # type: ignore[arg-type]
    dt, prob = file.dt, np.zeros(len(file.dt))
    if fitted is not None:
        other, cap = fitted
        rows, label = _examples(other, cap)
        _fit(made, other, rows, label, annotations.name)
        prob = made.predict(dt.score, dt.cls)
    else:
        fold = np.random.default_rng(seed).permutation(table.images) % folds
        for number in range(folds):
            others = judged if folds == 1 else judged & (fold[table.image] != number)
            _fit(made, table, others, right, annotations.name)
            held = fold[dt.image] == number
            prob[held] = made.predict(dt.score[held], dt.cls[held])
    dt = dt.rescored(rank_kept(prob, dt.score))
    again = rematch(dt)
    cap = top_per_class(dt, caps_per_class)
    figures = {
        "AP-Fixed": class_curves(again, keep=cap).ap(),
        "AP-Pool": pooled_curves(again, classes=np.arange(table.classes - 1), keep=cap).ap(),
    }
    if any(annotations.frequency):
        for letter in "rcf":
            pool = pooled_curves(again, classes=annotations.of_frequency(letter), keep=cap)
            figures[f"AP-Pool{letter}"] = pool.ap()
    return _scored(annotations, table, method, prob[table.row], judged, right, figures)


def _fit(made: Any, table: MatchTable, rows: Bools, label: Bools, name: str) -> None:
    if not rows.any():
        raise GuerdonError(f"{name}: there are no detections to calibrate by")
    made.fit(table.score[rows], label[rows], table.cls[rows])


def _examples(table: MatchTable, keep: Bools) -> tuple[Bools, Bools]:
    """[N] rows that are right or wrong, and which are right."""
    level = int(np.abs(table.thresholds - FIT_AT).argmin())
    hit = np.zeros(len(table.row), dtype=np.int8)
    hit[table.near] = table.hit[table.area("all"), level]
    judged = np.where(hit == 0, table.counted[table.area("all")], hit == 1)
    return judged & keep[table.row], hit == 1


def _scored(
    annotations: Annotations, table: MatchTable, method: str, prob: NDArray[np.float64], judged: Bools, right: Bools,
    figures: dict[str, float],
) -> CalibratedScores:  # fmt: skip
    p, y, cls = prob[judged], right[judged], table.cls[judged]
    errors = {"ECE": float("nan"), "ECE per class": float("nan")}
    if len(p):
        errors = {
            "ECE": expected_calibration_error(p, y, BINS),
            "ECE per class": group_calibration_error(p, y, cls, BINS),
        }
    for letter in "rcf" if any(annotations.frequency) else "":
        rows = np.isin(cls, annotations.of_frequency(letter))
        errors[f"ECE {letter}"] = expected_calibration_error(p[rows], y[rows], BINS) if rows.any() else float("nan")
    place = np.searchsorted(np.arange(1, BINS) / BINS, p)
    many = np.bincount(place, minlength=BINS)
    means = [np.bincount(place, weights=values, minlength=BINS) / np.maximum(many, 1) for values in (p, y)]
    bins = [(float(means[0][bin]), float(means[1][bin]), int(many[bin])) for bin in np.flatnonzero(many)]
    return CalibratedScores(method, {**figures, **errors}, bins)
