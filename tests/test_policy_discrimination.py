"""Accuracy of ranked answers against a reference, and of telling held-out policies apart."""

from __future__ import annotations

import math

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.metrics.policy_discrimination import policy_discrimination, reference_preference_accuracy


def test_second_against_third() -> None:
    found = reference_preference_accuracy([[2.0, 1.0], [1.0, 2.0], [1.0, 1.0], [3.0, 0.0]])
    assert found.value == 2.5 / 4 and found.low <= found.value <= found.high
    # Of three ranked answers all three pairs count.
    assert reference_preference_accuracy([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0]]).value == pytest.approx((3 + 1) / 6)


def test_prompts_are_resampled_whole() -> None:
    scores = [[1.0, 0.0]] * 10 + [[0.0, 1.0]] * 10
    rows = reference_preference_accuracy(scores)
    grouped = reference_preference_accuracy(scores, groups=[0] * 10 + [1] * 10)
    assert grouped.value == rows.value == 0.5 and grouped.high - grouped.low > rows.high - rows.low


@pytest.mark.parametrize("scores", [[], [1.0, 2.0], [[1.0]], [[1.0, math.nan]]])
def test_ranked_scores_are_checked(scores: list) -> None:
    with pytest.raises(GuerdonError):
        reference_preference_accuracy(scores)


def test_discrimination_by_policy() -> None:
    pairs = [("a", "b"), ("a", "c"), ("b", "c"), ("c", "a")]
    found = policy_discrimination([1, 1, 0, 0.5], [0, 2, 1, 0.5], pairs)
    assert found.accuracy.value == 1.5 / 4
    assert found.by_policy == {"a": 0.5, "b": 0.0, "c": 0.5} and found.triples == {"a": 2, "b": 1, "c": 1}


def test_policies_that_were_trained_on_are_refused() -> None:
    with pytest.raises(GuerdonError, match="triple 1 is of policy 'b', which was trained on"):
        policy_discrimination([1, 1], [0, 0], [("a", "c"), ("a", "b")], trained_on={"b", "d"})
    with pytest.raises(GuerdonError, match="'a' with itself"):
        policy_discrimination([1], [0], [("a", "a")])
    with pytest.raises(GuerdonError, match="as many pairs of policies"):
        policy_discrimination([1], [0], [])
