"""Grades of comparisons: swap-averaging by its unit facts, the unit scale, the histogram's verdicts."""

from __future__ import annotations

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.metrics.exemplar_grades import grade_histogram, swap_averaged_grade, unit_grade


def test_unit_facts_of_the_swap() -> None:
    assert swap_averaged_grade(4, 2) == 4
    assert swap_averaged_grade(5, 5) == 3, "whoever stands first wins: a tie"
    assert swap_averaged_grade(1, 5) == 1 and swap_averaged_grade(5, 1) == 5
    assert swap_averaged_grade(2, 2, grades=3) == 2
    for wrong in ((0, 3), (3, 6)):
        with pytest.raises(GuerdonError, match=r"\[1, 5\]"):
            swap_averaged_grade(*wrong)


def test_unit_scale() -> None:
    assert [unit_grade(grade) for grade in (1, 3, 5)] == [0, 0.5, 1]
    with pytest.raises(GuerdonError):
        unit_grade(5.5)


def test_histogram() -> None:
    assert grade_histogram([5] * 19 + [1]).verdict == "too weak"
    assert grade_histogram([1, 2] * 10 + [5]).verdict == "too strong"
    found = grade_histogram([1, 3, 3.5, 2.5, 5])
    assert found.verdict == "well placed" and found.counts == (1, 0, 3, 0, 1)
    assert found.high == pytest.approx(0.2) and found.low == pytest.approx(0.2)
    assert grade_histogram([5] * 9 + [1]).verdict == "well placed", "exactly 90% is no alarm"
    assert grade_histogram([]).verdict == "unknown"
    with pytest.raises(GuerdonError):
        grade_histogram([6])
