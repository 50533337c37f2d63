"""One against many: the card's unit facts, ties, what is missing, and ragged items."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.metrics.one_to_many import one_to_many, pairwise_to_one_to_many


def test_a_tie_for_the_first_place() -> None:
    found = one_to_many([[3.0, 1.0, 2.0, 3.0]])
    assert (found.acc, found.acc_tie, found.mrr) == (0.0, 1.0, 0.5)
    assert found.tie_rate == 1.0 and found.mean_pairwise == pytest.approx(2.5 / 3)


def test_a_constant_score_is_at_chance_only_by_lot() -> None:
    found = one_to_many(np.zeros((7, 10)))
    assert (found.acc, found.acc_tie, found.acc_by_lot) == (0.0, 1.0, pytest.approx(found.chance))
    assert found.mean_pairwise == 0.5 and found.mrr == pytest.approx(0.1)


def test_chance_of_one_in_ten() -> None:
    found = one_to_many(np.arange(10.0)[None])
    assert found.chance == pytest.approx(0.1) and found.chance_mrr == pytest.approx(0.2929, abs=5e-5)
    scores = np.random.default_rng(0).standard_normal((20_000, 10))
    drawn = one_to_many(scores)
    assert drawn.acc == pytest.approx(drawn.chance, abs=0.01)
    assert drawn.mrr == pytest.approx(drawn.chance_mrr, abs=0.01)


@pytest.mark.parametrize("wins, acc, mrr", [(9, 1.0, 1.0), (7, 0.0, 1 / 3), (0, 0.0, 1 / 10)])
def test_pairwise_wins(wins: int, acc: float, mrr: float) -> None:
    found = pairwise_to_one_to_many([[1] * wins + [0] * (9 - wins)])
    assert found.acc == acc and found.mrr == pytest.approx(mrr) and found.mean_pairwise == pytest.approx(wins / 9)


def test_an_unparsable_comparison_is_a_loss_or_left_out() -> None:
    rows = [[1, math.nan], [1, 1]]
    assert pairwise_to_one_to_many(rows).acc == 0.5
    left = pairwise_to_one_to_many(rows, unparsable="leave_out")
    assert left.acc == 1.0 and left.measured.tolist() == [False, True]
    assert pairwise_to_one_to_many([[1, 0.5]]).summary()["acc_tie"] == 1.0


def test_a_missing_score_is_no_number() -> None:
    found = one_to_many([[1.0, math.nan, 0.0], [1.0, 0.0]])
    assert found.measured.tolist() == [False, True] and found.acc == 1.0
    assert np.isnan(found.reciprocal_rank[0]) and found.chance == 0.5
    assert found.summary()["items"] == 2 and found.summary()["measured"] == 1
    nothing = one_to_many([[math.nan, 1.0]])
    assert math.isnan(nothing.acc) and math.isnan(nothing.chance_mrr)


def test_ragged_items_and_places() -> None:
    found = one_to_many([[0.0, 5.0], [9.0, 1.0, 2.0]], correct_idx=[1, 2])
    assert found.first.tolist() == [1, 0] and found.reciprocal_rank.tolist() == [1, 0.5]
    assert found.wrong.tolist() == [1, 2] and found.chance == pytest.approx((1 / 2 + 1 / 3) / 2)


@pytest.mark.parametrize(
    "scores, place, said",
    [
        ([], 0, "no item"),
        ([[1.0]], 0, "item 0 needs at least 2"),
        ([[1.0, 2.0]], 2, "no answer 2"),
        ([[1.0, math.inf]], 0, "infinite, at place 1"),
    ],
)
def test_what_cannot_be_ranked(scores: list[list[float]], place: int, said: str) -> None:
    with pytest.raises(GuerdonError, match=said):
        one_to_many(scores, place)


def test_a_comparison_has_three_outcomes() -> None:
    with pytest.raises(GuerdonError, match="won"):
        pairwise_to_one_to_many([[2.0]])


@given(st.lists(st.lists(st.integers(0, 5), min_size=2, max_size=6), min_size=1, max_size=5), st.integers(1, 4))
def test_only_the_order_counts(rows: list[list[int]], scale: int) -> None:
    plain, moved = one_to_many(rows), one_to_many([[scale * value - 7.0 for value in row] for row in rows])
    assert plain.summary() == moved.summary()
    shuffled = one_to_many([[row[0], *reversed(row[1:])] for row in rows])
    assert plain.summary() == shuffled.summary()
    assert plain.acc <= plain.mrr <= plain.acc_tie + (1 - plain.acc_tie) / 2 + 1e-12
    assert plain.acc <= plain.mean_pairwise + 1e-12


@given(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=6), min_size=1, max_size=5))
def test_scores_and_the_comparisons_they_imply_agree(rows: list[list[int]]) -> None:
    outcomes = [[1.0 if row[0] > other else 0.5 if row[0] == other else 0.0 for other in row[1:]] for row in rows]
    assert one_to_many(rows).summary() == pairwise_to_one_to_many(outcomes).summary()
