"""Subset means, weighted totals and paired differences, each with an interval that covers what it should."""

from __future__ import annotations

import math

import numpy as np
import pytest

from guerdon.benchmarks.credits import Credits, Special, compare, subset_scores, totals
from guerdon.core.errors import GuerdonError
from guerdon.metrics.intervals import bootstrap_mean


def credits_of(**columns: list[float]) -> Credits:
    names = [name for name, values in columns.items() for _ in values]
    groups = [f"{name} {place}" for name, values in columns.items() for place in range(len(values))]
    return Credits(names, groups, np.array([value for values in columns.values() for value in values]))


def test_scores_by_subset_and_a_weighted_total() -> None:
    scores, draws = subset_scores(credits_of(a=[1, 0, 1, 1], b=[0, 0.5]), chance={"a": 0.25})
    assert [(one.name, one.rows, one.score.value, one.chance) for one in scores] == [
        ("a", 4, 0.75, 0.25), ("b", 2, 0.25, None),
    ]  # fmt: skip
    found = totals({"a": 0.75, "b": 0.25}, draws, {"whole": {"a": 0.5, "b": 0.5}})["whole"]
    assert found.value == 0.5 and 0.1 < found.low < 0.5 < found.high < 0.8


def test_the_interval_is_the_bootstraps() -> None:
    values = (np.random.default_rng(0).random(300) < 0.7).astype(float)
    found = subset_scores(credits_of(a=list(values)))[0][0].score
    wanted = bootstrap_mean(values)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.01)


def test_rows_without_a_judgement_are_counted_and_left_out() -> None:
    nan = math.nan
    scores, draws = subset_scores(credits_of(a=[1, nan, 0, nan], b=[nan, nan]))
    assert scores[0].score.value == 0.5 and scores[0].unjudged == 2
    assert math.isnan(scores[1].score.value) and math.isnan(scores[1].score.low) and scores[1].unjudged == 2
    assert math.isnan(totals({"a": 0.5, "b": nan}, draws, {"whole": {"a": 0.5, "b": 0.5}})["whole"].value)


def test_whole_groups_are_resampled() -> None:
    rng = np.random.default_rng(1)
    per_prompt = (rng.random(40) < 0.5).astype(float)
    rows = np.repeat(per_prompt, 10)
    groups = [str(place) for place in range(40) for _ in range(10)]
    together = subset_scores(Credits(["a"] * 400, groups, rows))[0][0].score
    apart = subset_scores(Credits(["a"] * 400, [str(row) for row in range(400)], rows))[0][0].score
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_two_alike_subjects_differ_far_less_than_either_is_uncertain() -> None:
    rng = np.random.default_rng(2)
    hard = rng.random(400) < 0.5
    first, second = hard.astype(float), hard.astype(float)
    second[:8] = 1 - second[:8]
    one, other = credits_of(a=list(first)), credits_of(a=list(second))
    found = compare(one, other, {"whole": {"a": 1.0}})
    alone = subset_scores(one)[0][0].score
    gap = found[0].difference
    assert gap.value == pytest.approx(first.mean() - second.mean())
    assert gap.high - gap.low < 0.5 * (alone.high - alone.low)
    assert found[0].test.better + found[0].test.worse == 8 and found[0].test.equal == 392
    assert found[1].name == "whole" and found[1].difference.value == gap.value and math.isnan(found[1].p_adjusted)


def test_a_difference_is_taken_on_rows_that_both_judged() -> None:
    nan = math.nan
    found = compare(credits_of(a=[1, nan, 1, 0]), credits_of(a=[0, 1, nan, 0]), {})
    assert found[0].difference.value == 0.5 and (found[0].test.better, found[0].test.equal) == (1, 1)


def test_many_subsets_are_corrected_for() -> None:
    first = credits_of(a=[1] * 6, b=[1] * 6, c=[1] * 6)
    second = credits_of(a=[0] * 6, b=[0] * 6, c=[1] * 6)
    found = {one.name: one for one in compare(first, second, {})}
    assert found["a"].test.p == pytest.approx(2 / 2**6) and found["a"].p_adjusted == pytest.approx(3 * 2 / 2**6)
    assert found["c"].test.p == 1


def test_a_subset_may_have_a_score_of_its_own() -> None:
    special = Special(lambda counts: counts @ np.array([1.0, 3.0]) / 4, 2, np.array([1.0, math.nan, 0.0]))
    own = Credits(["s"] * 3, ["0", "0", "1"], np.full(3, math.nan), {"s": special})
    scores, _ = subset_scores(own)
    assert scores[0].score.value == 1 and scores[0].unjudged == 1
    assert scores[0].score.low == 0.5 and scores[0].score.high == 1.5  # two groups: either may be drawn twice
    assert compare(own, own, {})[0].difference.value == 0


def test_large_sets_are_drawn_in_blocks_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    values = list((np.random.default_rng(3).random(50) < 0.5).astype(float))
    whole = subset_scores(credits_of(a=values))[1]["a"]
    monkeypatch.setattr("guerdon.benchmarks.credits._CELLS", 5000)
    assert np.array_equal(subset_scores(credits_of(a=values))[1]["a"], whole)


def test_different_rows_are_not_compared() -> None:
    with pytest.raises(GuerdonError, match="same rows"):
        compare(credits_of(a=[1]), credits_of(b=[1]), {})
