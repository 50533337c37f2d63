"""How good a classifier's predictions are, beside what always saying one class would give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import f1_score, recall_score

from guerdon.core.errors import GuerdonError
from guerdon.metrics.intervals import Interval, bootstrap_mean

__all__ = ["ClassScores", "class_scores", "merge_levels"]


@dataclass(frozen=True)
class ClassScores:
    """Scores of N predictions, shares in [0, 1].

    acc:           share that is right. balanced_acc: mean over the classes of the share found; 1 / classes for always
                   saying one class. macro_f1: mean over the classes of F1, 0 for a class never predicted.
    majority_acc:  accuracy of always saying the most frequent class of the training labels.
    predicted:     share of predictions of each class; one of them near 1 is a probe that says one thing.
    """

    acc: Interval
    balanced_acc: float
    macro_f1: float
    majority_acc: float
    predicted: tuple[float, ...]
    n: int


def class_scores(
    labels: ArrayLike,
    predicted: ArrayLike,
    classes: int,
    *,
    training_labels: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> ClassScores:
    """Grade predictions of classes 0..classes-1.

    Args:
        labels, predicted: integers [N]. A class without labels counts in neither mean.
        training_labels: [M], whose most frequent class is what a constant would say; None takes the labels themselves.
        resamples, seed: of the bootstrap of acc.
    Raises:
        GuerdonError: shapes, nothing, or a value that is no class.
    Source: asked of MRMBench (arXiv 2511.12464), which prints accuracies of about the share of one class.
    """
    truth, said = _classes(labels, classes, "labels"), _classes(predicted, classes, "predictions")
    if truth.shape != said.shape:
        raise GuerdonError(f"there are {said.size} predictions for {truth.size} labels")
    known = truth if training_labels is None else _classes(training_labels, classes, "training labels")
    common = int(np.bincount(known, minlength=classes).argmax())
    there = np.unique(truth).tolist()
    return ClassScores(
        acc=bootstrap_mean((truth == said).astype(np.float64), resamples=resamples, seed=seed),
        balanced_acc=float(recall_score(truth, said, labels=there, average="macro", zero_division=0)),
        macro_f1=float(f1_score(truth, said, labels=there, average="macro", zero_division=0)),
        majority_acc=float((truth == common).mean()),
        predicted=tuple(float(share) for share in np.bincount(said, minlength=classes) / said.size),
        n=int(truth.size),
    )


def merge_levels(levels: ArrayLike, cuts: ArrayLike) -> NDArray[np.int64]:
    """Classes of ratings: how many of the growing ``cuts`` a rating reaches; cuts (1, 3): 0 -> 0, 1, 2 -> 1, 3, 4 -> 2.

    MRMBench merges HelpSteer's ratings 0..4 into two or three classes; where it cuts is not released, so the cuts are
    an argument. Raises GuerdonError for cuts that do not grow, or a rating that is not finite.
    """
    values, edges = np.asarray(levels, dtype=np.float64), np.asarray(cuts, dtype=np.float64)
    if edges.ndim != 1 or not edges.size or (np.diff(edges) <= 0).any():
        raise GuerdonError(f"cuts must grow, got {edges.tolist()}")
    if not np.isfinite(values).all():
        raise GuerdonError("ratings must be finite numbers")
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def _classes(values: ArrayLike, classes: int, name: str) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or not array.size or not np.issubdtype(array.dtype, np.integer):
        raise GuerdonError(f"{name} must be a non-empty [N] of integers, got {array.dtype} {list(array.shape)}")
    if array.min() < 0 or array.max() >= classes:
        raise GuerdonError(f"{name} must lie in 0..{classes - 1}, got {int(array.min())}..{int(array.max())}")
    return array.astype(np.int64)
