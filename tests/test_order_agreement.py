"""Agreement of orders within prompts, against SciPy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, pearsonr, spearmanr

from guerdon.core.errors import GuerdonError
from guerdon.metrics.order_agreement import agreement, pair_counts, selection_regret


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_correlations_equal_scipys_ties_included(seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, 36))
    if ties:
        first, second = np.round(first), np.round(2 * second) / 2
    groups = np.repeat(np.arange(6), 6)
    found = agreement(first, second, groups, resamples=2)
    for name, measure in (("spearman", spearmanr), ("kendall", kendalltau), ("pearson", pearsonr)):
        rows = [(first[groups == g], second[groups == g]) for g in range(6)]
        usable = [(a, b) for a, b in rows if np.ptp(a) and np.ptp(b)]
        expected = np.mean([measure(a, b)[0] for a, b in usable])
        assert getattr(found, name).value == pytest.approx(expected, abs=1e-12)
        assert found.constant == 6 - len(usable)


def test_pairs_by_hand() -> None:
    first = [3.0, 2.0, 1.0, 1.0, 5.0, 5.0]
    second = [3.0, 1.0, 2.0, 2.0, 0.0, 1.0]
    groups = ["a", "a", "a", "a", "b", "b"]
    counts = pair_counts(first, second, groups)
    # a: 3-2, 3-1, 3-1 alike; 2-1 twice opposed; 1-1 tied by both. b: tied by the first only.
    assert counts.alike.tolist() == [3, 0] and counts.opposed.tolist() == [2, 0]
    assert counts.both_tie.tolist() == [1, 0] and counts.one_tie.tolist() == [0, 1]
    found = agreement(first, second, groups, resamples=50)
    assert found.order.value == pytest.approx(3 / 5)
    assert found.pairs == {"alike": 3, "opposed": 2, "one tie": 1, "both tie": 1}
    assert found.prompts == 2 and found.constant == 1
    # a: both choose the first row; b: the first has no favourite, half of its choices is the second's.
    assert found.same_best.value == pytest.approx((1 + 0.5) / 2)


def test_what_it_costs_to_let_the_other_choose() -> None:
    own = [1.0, 0.0, 0.5, 2.0, 2.0]
    other = [0.0, 9.0, 9.0, 1.0, 0.0]
    groups = [0, 0, 0, 1, 1]
    # The other's favourites are worth 0 and 0.5 of a range of 1; the second prompt is all one to the first reward.
    assert selection_regret(own, other, groups) == pytest.approx(0.75)
    assert selection_regret(own, own, groups) == 0
    found = agreement(own, other, groups, resamples=50)
    assert found.first_loses.value == pytest.approx(0.75)
    # The first's favourite of prompt 0 is the other's worst; of prompt 1 both, half of which is the worst.
    assert found.second_loses.value == pytest.approx((1 + 0.5) / 2)


def test_same_and_opposite() -> None:
    rng = np.random.default_rng(0)
    first, groups = rng.normal(size=40), np.repeat(np.arange(10), 4)
    same, turned = agreement(first, np.exp(first), groups), agreement(first, -first, groups)
    assert same.order.value == same.spearman.value == same.kendall.value == same.same_best.value == 1
    assert same.pearson.value < 1 and same.first_loses.value == same.second_loses.value == 0
    assert turned.order.value == 0 and turned.kendall.value == -1 and turned.first_loses.value == 1


def test_chance_is_a_half() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 4000))
    found = agreement(first, second, np.repeat(np.arange(1000), 4), resamples=100)
    assert found.order.low < 0.5 < found.order.high and found.kendall.low < 0 < found.kendall.high
    assert found.same_best.value == pytest.approx(0.25, abs=0.04)


def test_rows_of_a_prompt_need_not_stand_together_and_missing_scores_are_left_out() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(2, 24))
    groups, order = np.repeat(np.arange(6), 4), rng.permutation(24)
    found = agreement(first, second, groups, resamples=20)
    moved = agreement(first[order], second[order], groups[order], resamples=20)
    assert moved.order == found.order and moved.kendall == found.kendall and moved.pairs == found.pairs
    assert moved.pearson.value == pytest.approx(found.pearson.value)
    first[[3, 9]] = np.nan
    kept = ~np.isnan(first)
    assert agreement(first, second, groups, resamples=20) == agreement(
        first[kept], second[kept], groups[kept], resamples=20
    )


def test_large_offsets_and_small_scales_cost_no_digits() -> None:
    base = np.array([0.0, 1.0, 3.0, 2.0])
    found = agreement(1e-12 * base, 1e9 + base, [0, 0, 0, 0], resamples=2)
    assert found.pearson.value == pytest.approx(1, abs=1e-6) and found.kendall.value == 1


def test_nothing_to_compare() -> None:
    with pytest.raises(GuerdonError, match="no prompt has two completions"):
        agreement([1.0, 2.0], [1.0, 2.0], [0, 1])
    with pytest.raises(GuerdonError, match="no prompt has two completions"):
        agreement([1.0, np.nan], [1.0, 2.0], [0, 0])
    with pytest.raises(GuerdonError, match="score the same"):
        agreement([1.0, 2.0], [1.0], [0, 0])
    constant = agreement([1.0, 1.0], [1.0, 1.0], [0, 0], resamples=5)
    assert math.isnan(constant.order.value) and math.isnan(constant.spearman.value) and constant.constant == 1
    assert constant.pairs["both tie"] == 1 and math.isnan(constant.first_loses.value)
