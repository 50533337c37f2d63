"""Grades of a comparison with an exemplar: averaged over both orders, on the unit scale, and watched as a histogram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from guerdon.core.errors import GuerdonError

__all__ = ["GradeHistogram", "grade_histogram", "swap_averaged_grade", "unit_grade"]

Placed = Literal["well placed", "too weak", "too strong", "unknown"]


def swap_averaged_grade(first: float, second: float, *, grades: int = 5) -> float:
    """(g + (n + 1 - g')) / 2 in [1, n]: the grade of a text asked about first (g) and second (g').

    ``second`` grades the other text against this one, so a judge without regard to the order gives g' = n + 1 - g. One
    that always prefers what stands first gives the middle grade: a tie. Raises GuerdonError for a grade outside [1, n].

    Source: ExTrans (arXiv 2505.12996) for the five grades; the averaging is its card's.
    """
    if grades < 2:
        raise GuerdonError(f"a comparison needs at least 2 grades, got {grades}")
    for grade in (first, second):
        if not 1 <= grade <= grades:
            raise GuerdonError(f"a grade must lie in [1, {grades}], got {grade}")
    return (first + grades + 1 - second) / 2


def unit_grade(grade: float, *, grades: int = 5) -> float:
    """(g - 1) / (n - 1) in [0, 1]: 0.5 is a tie."""
    if grades < 2 or not 1 <= grade <= grades:
        raise GuerdonError(f"a grade must lie in [1, {grades}] with at least 2 grades, got {grade}")
    return (grade - 1) / (grades - 1)


@dataclass(frozen=True)
class GradeHistogram:
    """counts: how many grades lie nearest to 1, 2, ... n. high, low: shares at or above / below one grade from the tie.
    verdict: "too weak" or "too strong" exemplars (their grades say little more), "unknown" without grades."""

    counts: tuple[int, ...]
    high: float
    low: float
    verdict: Placed


def grade_histogram(values: Sequence[float], *, grades: int = 5, share: float = 0.9) -> GradeHistogram:
    """Whether the exemplars are near the policy's level.

    values: grades in [1, n]. share: above this share of grades at or above the tie + 1 (4 of 5) the exemplars are too
    weak, of grades at or below the tie - 1 (2 of 5) too strong: a group then has no spread, and learning stops.
    The share is our choice. Raises GuerdonError for a grade outside [1, n] or a share outside (0, 1).
    """
    if not 0 < share < 1 or grades < 2:
        raise GuerdonError(f"share must lie in (0, 1) and grades be at least 2, got {share} and {grades}")
    found = np.asarray(values, dtype=np.float64)
    if found.size and not bool(((found >= 1) & (found <= grades)).all()):
        raise GuerdonError(f"grades must lie in [1, {grades}], got {found.min()} to {found.max()}")
    if not found.size:
        return GradeHistogram((0,) * grades, 0.0, 0.0, "unknown")
    tie = (grades + 1) / 2
    # A grade halfway between two counts as the one nearer the tie, so that only clear wins count as such.
    nearest = np.where(found > tie, np.ceil(found - 0.5), np.floor(found + 0.5)).astype(int)
    counts = tuple(int(count) for count in np.bincount(nearest, minlength=grades + 1)[1:])
    high, low = float((found >= tie + 1).mean()), float((found <= tie - 1).mean())
    verdict: Placed = "too weak" if high > share else "too strong" if low > share else "well placed"
    return GradeHistogram(counts, high, low, verdict)
