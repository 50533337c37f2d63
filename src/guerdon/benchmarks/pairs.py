"""Grading by preference pairs: accuracy with its interval, calibration, length, and baselines without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Message, Pair, prompt_key, text_of
from guerdon.metrics.calibration import brier, expected_calibration_error, pair_probabilities, reliability
from guerdon.metrics.intervals import Interval, bootstrap_mean, paired_difference
from guerdon.metrics.pair_accuracy import length_correlation, pair_outcomes

Scores = NDArray[np.float64]


class Judge(Protocol):
    """Anything with ``score(conversations, images=...) -> [N]``: a reward model, an ensemble, a baseline."""

    def score(self, conversations: Sequence[list[Message]], **options: Any) -> Any: ...


def score_pairs(judge: Judge, pairs: Sequence[Pair], *, progress: str | None = None) -> tuple[Scores, Scores]:
    """Scores of the chosen and of the rejected answers, float64 [N] each.

    Both answers of a pair stand side by side, so that a model which shares prompts reads each prompt once.
    """
    conversations = [pair.conversation(side) for pair in pairs for side in ("chosen", "rejected")]  # type: ignore[arg-type]
    options: dict[str, Any] = {} if progress is None else {"progress": progress}
    if any(pair.images for pair in pairs):
        options["images"] = [pair.images for pair in pairs for _ in range(2)]
    scores = np.asarray(judge.score(conversations, **options), dtype=np.float64)
    if scores.shape != (2 * len(pairs),) or not np.isfinite(scores).all():
        raise GuerdonError(f"a judge gave {list(scores.shape)} scores, not all of them finite, for {len(pairs)} pairs")
    return scores[::2], scores[1::2]


@dataclass(frozen=True)
class Grade:
    """What one judge's scores of N pairs are worth.

    accuracy:  ties count half; against "truth", where the data know it, in ``true_accuracy``.
    over:      paired difference in accuracy to each other judge.
    length:    correlation of the score with log words, and with the answers' rating held fixed (partial).
    """

    accuracy: Interval
    true_accuracy: Interval | None
    calibration_error: float
    brier: float
    length: float
    length_partial: float
    mean_gap: float
    bins: list[dict[str, float]]
    over: dict[str, Interval]


def grade(scores: Mapping[str, tuple[Scores, Scores]], pairs: Sequence[Pair], *, seed: int = 0) -> dict[str, Grade]:
    """Grade each judge by its scores of the same pairs; intervals resample prompts.

    Raises GuerdonError for no pairs or scores of another number of pairs.
    """
    if not pairs:
        raise GuerdonError("there are no pairs to grade by")
    # A pair without a prompt stands for itself.
    groups = [prompt_key(pair) or f"row {row}" for row, pair in enumerate(pairs)]
    truth = [pair.row.get("truth") for pair in pairs]
    known = np.array([value in (1, -1) for value in truth])
    words = np.log([[1 + len(text_of(side).split()) for side in (pair.chosen, pair.rejected)] for pair in pairs])
    right = {name: pair_outcomes(*both) for name, both in scores.items()}
    grades = {}
    for name, (chosen, rejected) in scores.items():
        if len(chosen) != len(pairs):
            raise GuerdonError(f"judge {name!r} scored {len(chosen)} pairs of {len(pairs)}")
        true_accuracy = None
        if known.any():
            flipped = np.array([value == -1 for value in truth])
            held = np.where(flipped, 1 - right[name], right[name])[known]
            true_accuracy = bootstrap_mean(held, groups=np.asarray(groups)[known], seed=seed)
        prob, outcome = pair_probabilities(chosen, rejected)
        both, lengths = np.concatenate([chosen, rejected]), words.T.ravel()
        preferred = np.repeat([1.0, 0.0], len(pairs))
        grades[name] = Grade(
            accuracy=bootstrap_mean(right[name], groups=groups, seed=seed),
            true_accuracy=true_accuracy,
            calibration_error=expected_calibration_error(prob, outcome),
            brier=brier(prob, outcome),
            length=length_correlation(both, lengths),
            length_partial=length_correlation(both, lengths, preferred),
            mean_gap=float((chosen - rejected).mean()),
            bins=[
                {"predicted": one.prob, "observed": one.outcome.value, "count": one.count}
                for one in reliability(prob, outcome, groups=groups, resamples=100)
            ],
            over={
                other: paired_difference(right[name], right[other], groups=groups, seed=seed)
                for other in scores
                if other != name
            },
        )
    return grades


def table(grades: Mapping[str, Grade], count: int) -> dict[str, Any]:
    """The grades as a table for a page or a terminal."""
    true = any(one.true_accuracy is not None for one in grades.values())
    columns = ["judge", "accuracy [95%]", *(["against the truth [95%]"] if true else [])]
    columns += ["calibration error", "Brier", "score and length", "the same at equal label"]
    rows = []
    for name, one in grades.items():
        held = [str(one.true_accuracy) if one.true_accuracy is not None else "-"] if true else []
        figures = (one.calibration_error, one.brier)
        lengths = (one.length, one.length_partial)
        rows.append([name, str(one.accuracy), *held, *(f"{v:.3f}" for v in figures), *(f"{v:+.3f}" for v in lengths)])
    note = f"{count} held-out pairs; intervals resample prompts; ties count half; length as correlation with log words."
    return {"title": "Held-out pairs", "note": note, "columns": columns, "rows": rows}
