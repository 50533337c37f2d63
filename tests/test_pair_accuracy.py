"""Metrics on preference pairs: accuracy, Acc+, what follows length, inflation, ranks, three validation sets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from guerdon.core.errors import GuerdonError
from guerdon.metrics.intervals import bootstrap_mean
from guerdon.metrics.pair_accuracy import (
    acc_plus,
    length_correlation,
    length_weight,
    pair_accuracy,
    pair_outcomes,
    rank_of,
    reward_inflation,
    three_validations,
)

scores = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=20)


def test_ties_count_half() -> None:
    assert pair_outcomes([2, 1, 0], [1, 1, 3]).tolist() == [1, 0.5, 0]
    assert pair_accuracy([2, 1, 0], [1, 1, 3]) == 0.5
    assert pair_accuracy(np.full(9, 0.3), np.full(9, 0.3)) == 0.5  # a constant judge knows nothing


@settings(deadline=None)
@given(scores)
def test_swapped_pairs_have_the_other_accuracy(rows: list) -> None:
    first, second = np.array(rows).T
    assert pair_accuracy(first, second) + pair_accuracy(second, first) == pytest.approx(1)
    # Any increasing map of the scores leaves it alone.
    assert pair_accuracy(np.exp(first), np.exp(second)) == pair_accuracy(first, second)


def test_interleaved_logits_of_the_card() -> None:
    logits = np.array([2.0, 1.0, 0.0, 3.0])  # even chosen, odd rejected
    assert pair_accuracy(logits[::2], logits[1::2]) == 0.5


def test_acc_plus_of_the_card() -> None:
    correct, groups = [1, 1, 1, 0], ["a", "a", "b", "b"]
    assert np.mean(correct) == 0.75 and acc_plus(correct, groups) == 0.5
    assert acc_plus([True, True, True, False], groups) == 0.5
    assert acc_plus([1, 0.5, 1, 1], groups) == 0.5  # a tie is not right
    assert acc_plus([1, 0, 1, 0], [7, 3, 3, 7]) == 0


def test_length_correlation() -> None:
    rng = np.random.default_rng(0)
    length = rng.lognormal(5, 0.7, 400)
    score = np.log(length) + rng.normal(size=400)
    assert length_correlation(score, length) == pytest.approx(spearmanr(score, length).statistic)
    assert length_correlation(score, length) == pytest.approx(length_correlation(score, np.log(length)))
    assert length_correlation(-score, length) == pytest.approx(-length_correlation(score, length))
    assert math.isnan(length_correlation(np.ones(400), length))


def test_partial_correlation_takes_out_what_quality_explains() -> None:
    """Long answers are better here, and the score sees quality only: length follows, but adds nothing."""
    rng = np.random.default_rng(0)
    quality = rng.normal(size=4000)
    length, honest = quality + rng.normal(size=4000), quality + 0.1 * rng.normal(size=4000)
    gamed = honest + length
    assert length_correlation(honest, length) > 0.5
    assert abs(length_correlation(honest, length, quality)) < 0.05
    assert length_correlation(gamed, length, quality) > 0.8
    assert length_correlation(gamed, length, np.stack([quality, rng.normal(size=4000)], axis=1)) > 0.8
    assert math.isnan(length_correlation(quality, length, quality))


def test_partial_correlation_agrees_with_the_three_correlations() -> None:
    a, b, c = np.random.default_rng(0).normal(size=(3, 50)) + np.linspace(0, 2, 50)
    ab, ac, bc = spearmanr(a, b).statistic, spearmanr(a, c).statistic, spearmanr(b, c).statistic
    expected = (ab - ac * bc) / math.sqrt((1 - ac**2) * (1 - bc**2))
    assert length_correlation(a, b, c) == pytest.approx(expected)


@pytest.mark.parametrize("bias", [0.0, 1.5, -2.0])
def test_length_weight_recovers_the_judges_bias(bias: float) -> None:
    rng = np.random.default_rng(0)
    quality, length = rng.normal(size=(2, 20_000)) * 1.5
    first = rng.random(20_000) < 1 / (1 + np.exp(-(quality + bias * length)))
    sign = np.where(first, 1, -1)
    stored = length_weight(sign * quality, sign * length)  # chosen less rejected
    assert stored == pytest.approx(bias, abs=0.08)
    assert length_weight(quality, length, preferred=first) == pytest.approx(stored, abs=1e-3)


def test_length_weight_without_a_score_and_on_separable_data() -> None:
    rng = np.random.default_rng(0)
    length = rng.normal(size=500)
    assert abs(length_weight(None, length * rng.choice([-1, 1], 500))) < 0.2
    assert 5 < length_weight(None, np.abs(length) + 0.1) < 1000  # the longer one always wins: finite all the same
    # A tie is half a win of each.
    assert length_weight(None, length, preferred=np.full(500, 0.5)) == pytest.approx(0, abs=1e-6)


def test_reward_inflation() -> None:
    before = (np.array([1.0, 2.0]), np.array([0.0, 1.0]))
    level = reward_inflation([before, (before[0] + 5, before[1] + 5)])
    assert (level.mean_rise, level.gap_rise, level.gap, level.ratio) == (5, 0, 1, 5) and level.inflated
    learnt = reward_inflation([before, (before[0] + 3, before[1] - 3)])
    assert (learnt.mean_rise, learnt.gap_rise, learnt.gap) == (0, 6, 7) and not learnt.inflated
    # A level that rises along with a gap that widens as much is no inflation; one that falls is none either.
    assert not reward_inflation([(0.0, 0.0), (4.0, 0.0)]).inflated
    assert not reward_inflation([(0.0, -1.0), (-5.0, -6.0)]).inflated
    middle = reward_inflation([before, (100.0, -100.0), before])
    assert (middle.mean_rise, middle.gap_rise) == (0, 0)
    assert math.isnan(reward_inflation([(0, 0), (1, 1)]).ratio)


def test_rank_of_the_card() -> None:
    assert rank_of([5.76, -2.85]) == [0, 1]
    assert rank_of([1, 3, 2]) == [2, 0, 1]
    assert rank_of([2.0, 5.0, 2.0]) == [1, 0, 1]


@settings(deadline=None)
@given(st.permutations(range(6)), st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_ranks_do_not_depend_on_the_order(order: list[int], values: list[int]) -> None:
    ranks = rank_of(values)
    assert rank_of([values[i] for i in order]) == [ranks[i] for i in order]
    assert min(ranks) == 0 and all((a < b) == (x > y) for a, x in zip(ranks, values) for b, y in zip(ranks, values))


def test_three_validations() -> None:
    chosen, rejected = [2, 0, 2, 0, 1], [0, 2, 0, 2, 1]
    judge = [1, 1, 0, 0, -1]
    found = three_validations(chosen, rejected, judge, resamples=200)
    # Ranked right by the original labels: 1, 0, 1, 0, tie. By the judge's: 1, 0, 0, 1. Where both agree: 1, 0.
    assert (found.original.value, found.judge.value, found.agreed.value) == (0.5, 0.5, 0.5)
    assert found.pairs == (5, 4, 2)
    found = three_validations([2, 2, 0, 2], [0, 0, 2, 0], [1, 1, 0, -1], resamples=200)
    assert (found.original.value, found.judge.value, found.agreed.value) == (0.75, 1.0, 1.0)
    none = three_validations([1, 2], [2, 1], [-1, -1], resamples=10)
    assert none.original.value == 0.5 and math.isnan(none.judge.value) and none.pairs == (2, 0, 0)


def test_the_interval_resamples_prompts() -> None:
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(40) < 0.7, 10)
    chosen, prompts = right.astype(float), np.repeat(np.arange(40), 10)
    found = three_validations(chosen, np.full(400, 0.5), np.ones(400), groups=prompts, resamples=500)
    assert found.original == bootstrap_mean(right, groups=prompts, resamples=500)
    narrow = three_validations(chosen, np.full(400, 0.5), np.ones(400), resamples=500).original
    assert found.original.high - found.original.low > 2 * (narrow.high - narrow.low)


def test_errors() -> None:
    with pytest.raises(GuerdonError, match="2 chosen scores, 1 rejected scores"):
        pair_accuracy([1, 2], [1])
    with pytest.raises(GuerdonError, match="rejected scores hold a nan at index 1"):
        pair_accuracy([1, 2], [1, math.nan])
    with pytest.raises(GuerdonError, match="non-empty"):
        pair_accuracy([], [])
    with pytest.raises(GuerdonError, match="each of the 2 rows"):
        acc_plus([1, 0], [1])
    with pytest.raises(GuerdonError, match="one row a pair"):
        length_correlation([1, 2], [1, 2, 3])
    with pytest.raises(GuerdonError, match="3 control"):
        length_correlation([1, 2], [1, 2], [1, 2, 3])
    with pytest.raises(GuerdonError, match="l2"):
        length_weight(None, [1.0], l2=0)
    with pytest.raises(GuerdonError, match="preferred must lie"):
        length_weight(None, [1.0], preferred=[2])
    with pytest.raises(GuerdonError, match="2 log_length_gap, 1 score_gap"):
        length_weight([1.0], [1.0, 2.0])
    with pytest.raises(GuerdonError, match="at least 2 evaluations; got 1"):
        reward_inflation([(1, 0)])
    with pytest.raises(GuerdonError, match="finite"):
        reward_inflation([(1, 0), (math.inf, 0)])
    with pytest.raises(GuerdonError, match=r"1 \(chosen\), 0 \(rejected\) or -1"):
        three_validations([1], [0], [2])
    with pytest.raises(GuerdonError, match="nan"):
        rank_of([1, math.nan])
