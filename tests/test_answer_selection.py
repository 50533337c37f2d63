"""Best-of-n on prefixes, and ties by majority."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.metrics.answer_selection import answer_classes, powers_of_two, selected_right


def test_prefixes_of_one_list() -> None:
    found = selected_right([0.1, 0.5, 0.9, 0.2], [0, 1, 2, 0], [1, 0, 1, 0], [1, 2, 3, 4])
    assert found.tolist() == [1, 0, 1, 1]


def test_ties_at_the_top() -> None:
    """Three samples share the highest score, two of them the answer 12: the majority is 12."""
    scores, answers, right = [3, 3, 3, 1], ["7", "12", "12 ", "7"], [1, 0, 0, 1]
    classes = answer_classes(answers)
    assert classes.tolist() == [0, 1, 1, 0]
    assert selected_right(scores, classes, right, [4]).tolist() == [0]
    assert selected_right(scores, classes, right, [4], tie="first").tolist() == [1]
    assert selected_right(scores, classes, right, [4], tie="average").tolist() == [pytest.approx(1 / 3)]
    assert selected_right(scores, classes, right, [2]).tolist() == [1]  # one each: the first of them


def test_equal_answers_by_a_rule() -> None:
    assert answer_classes(["12", "12.0", "x"], lambda a, b: float(a) == float(b) if "x" not in a + b else a == b)[
        :
    ].tolist() == [0, 0, 1]


def test_a_sample_without_a_score_is_never_selected() -> None:
    found = selected_right([math.nan, 0.1, math.nan], [0, 1, 2], [1, 0, 1], [1, 2, 3])
    assert np.isnan(found[0]) and found[1:].tolist() == [0, 0]


def test_sizes() -> None:
    assert powers_of_two(1) == [1] and powers_of_two(8) == [1, 2, 4, 8] and powers_of_two(10) == [1, 2, 4, 8, 10]
    with pytest.raises(GuerdonError):
        powers_of_two(0)


@pytest.mark.parametrize("sizes", [[0], [3]])
def test_sizes_that_are_not_there(sizes: list[int]) -> None:
    with pytest.raises(GuerdonError, match="samples"):
        selected_right([1, 2], [0, 1], [0, 1], sizes)


def test_rules_that_are_not_there() -> None:
    with pytest.raises(GuerdonError, match="majority"):
        selected_right([1], [0], [1], [1], tie="majorty")  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=12))
def test_a_perfect_score_finds_what_there_is(samples: list[tuple[int, bool]]) -> None:
    right = np.array([float(good) for _, good in samples])
    classes = np.array([2 * kind + good for kind, good in samples])  # equal answers are right together
    sizes = list(range(1, len(samples) + 1))
    assert selected_right(right, classes, right, sizes).tolist() == np.maximum.accumulate(right).tolist()
