"""Accuracy by place, and comparisons asked in both orders."""

from __future__ import annotations

import math

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.metrics.position_bias import position_bias, swap_consistency


def test_a_judge_that_names_the_first_place() -> None:
    found = position_bias([1, 0] * 20, ["A", "B"] * 20)
    assert found.accuracy["A"].value == 1 and found.accuracy["B"].value == 0
    assert found.chosen == {"A": 1.0, "B": 0.0} and found.gap.value == 1 and found.gap.low == 1
    assert found.counts == {"A": 20, "B": 20}


def test_an_unreadable_word_is_counted_and_wrong() -> None:
    found = position_bias([1, math.nan, 1, 0], ["A", "A", "B", "B"])
    assert found.unparsable == {"A": 1, "B": 0}
    assert found.accuracy["A"].value == 0.5 and found.gap.value == 0.0
    assert found.chosen["A"] == pytest.approx(2 / 3)


def test_an_unbiased_judge_has_a_gap_around_zero() -> None:
    found = position_bias([1, 1, 1, 0] * 50, ["A", "B", "B", "A", "B", "A", "A", "B"] * 25, groups=list(range(50)) * 4)
    assert found.gap.low < 0 < found.gap.high


@pytest.mark.parametrize(
    "right, place", [([1], ["A"]), ([1, 0], ["A"]), ([1, 2], ["A", "B"]), ([1, 1, 1], ["A", "B", "C"])]
)
def test_what_is_no_comparison(right: list[float], place: list[str]) -> None:
    with pytest.raises(GuerdonError):
        position_bias(right, place)


def test_both_orders() -> None:
    found = swap_consistency([1, 1, 0, 1], [1, 0, 0, math.nan])
    assert found["consistent"] == pytest.approx(2 / 3) and found["right"] == pytest.approx(1 / 3)
    assert found["measured"] == 0.75
    assert math.isnan(swap_consistency([math.nan], [1])["right"])
    with pytest.raises(GuerdonError):
        swap_consistency([1, 0], [1])
