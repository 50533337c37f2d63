"""Best-of-n over answers that can be right: how often the answer with the highest score is, as n grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guerdon.core.errors import GuerdonError, unknown

__all__ = ["TieRule", "answer_classes", "powers_of_two", "selected_right"]

TieRule = Literal["majority", "first", "average"]


def answer_classes(answers: Sequence[str], equal: Callable[[str, str], bool] | None = None) -> NDArray[np.int64]:
    """The class of each final answer, int64 [N], in order of appearance: equal answers share one.

    equal: equivalence of two answers, asked of each class's first member; None compares the words as they are, without
    white space at the ends. A relation that is not transitive gives classes by whom they met first.
    """
    firsts: list[str] = []
    classes = np.zeros(len(answers), dtype=np.int64)
    for place, answer in enumerate(answers):
        text = answer.strip()
        same = (known == text if equal is None else equal(known, text) for known in firsts)
        found = next((number for number, yes in enumerate(same) if yes), None)
        if found is None:
            found = len(firsts)
            firsts.append(text)
        classes[place] = found
    return classes


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4, ... up to ``most``, and ``most`` itself."""
    if most < 1:
        raise GuerdonError(f"best-of-n needs at least 1 sample, got {most}")
    sizes = [2**power for power in range(most.bit_length()) if 2**power <= most]
    return sizes if sizes[-1] == most else [*sizes, most]


def selected_right(
    scores: ArrayLike, classes: ArrayLike, right: ArrayLike, sizes: Sequence[int], *, tie: TieRule = "majority"
) -> NDArray[np.float64]:
    """Whether the answer that best-of-n selects is right, for the first n samples of one problem.

    Args:
        scores: [N]; NaN is a sample without a score, which is never selected.
        classes: [N] class of each final answer (`answer_classes`). right: [N] in {0, 1}.
        sizes: n_1..n_S, each in [1, N].
        tie: among samples of the same highest score "majority" takes the class most frequent among them (the first of
            equally frequent ones), as RewardMATH does; "first" the first sample; "average" the mean over them.
    Returns:
        float64 [S] in [0, 1], a fraction only under "average"; NaN where none of the first n has a score.
    Raises:
        GuerdonError: shapes, a size outside [1, N], an unknown rule.
    Source: RewardMATH (arXiv 2410.01729), best-of-n on prefixes of one list of samples.
    """
    if tie not in get_args(TieRule):
        raise unknown("rule for ties", tie, get_args(TieRule))
    score, kind, good = np.asarray(scores, np.float64), np.asarray(classes), np.asarray(right, np.float64)
    if score.ndim != 1 or not score.size or kind.shape != score.shape or good.shape != score.shape:
        raise GuerdonError(
            f"scores, classes and right must be the same non-empty [N]; got {list(score.shape)}, {list(kind.shape)} "
            f"and {list(good.shape)}"
        )
    held = np.where(np.isnan(score), -np.inf, score)
    found = np.empty(len(sizes))
    for place, size in enumerate(sizes):
        if not 1 <= size <= score.size:
            raise GuerdonError(f"best-of-{size} needs {size} samples, there are {score.size}")
        if np.isnan(score[:size]).all():
            found[place] = np.nan
            continue
        best = np.flatnonzero(held[:size] == held[:size].max())
        if tie == "average":
            found[place] = good[best].mean()
        elif tie == "first":
            found[place] = good[best[0]]
        else:
            names, firsts, counts = np.unique(kind[best], return_index=True, return_counts=True)
            most = firsts[counts == counts.max()].min()
            found[place] = good[best[most]]
    return found
