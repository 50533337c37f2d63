"""Follow-up likelihoods: the published unit facts, the combinations, and weights."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.objectives.follow_up import follow_up_value, utterance_log_likelihood

COMBINATIONS = ("mean_difference", "log_odds", "positive_only", "negative_only")


def test_published_unit_facts() -> None:
    log_probs = torch.tensor([[0.5, 0.25], [0.125, 0.125]]).log()
    found = utterance_log_likelihood(log_probs, torch.ones(2, 2, dtype=torch.bool))
    torch.testing.assert_close(found, torch.tensor([-1.0397, -2.0794]), atol=1e-4, rtol=0)
    assert float(follow_up_value(found[:1], found[1:])) == pytest.approx(1.5 * math.log(2))


def test_padding_counts_for_nothing_and_sums_are_sums() -> None:
    log_probs = torch.tensor([[-1.0, -2.0, 99.0], [-3.0, 99.0, 99.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert utterance_log_likelihood(log_probs, mask).tolist() == [-1.5, -3.0]
    assert utterance_log_likelihood(log_probs, mask, length_norm=False).tolist() == [-3.0, -3.0]


def test_an_utterance_without_tokens_is_an_error() -> None:
    with pytest.raises(GuerdonError, match="utterance 1 has no tokens"):
        utterance_log_likelihood(torch.zeros(2, 1), torch.tensor([[True], [False]]))
    with pytest.raises(GuerdonError, match=r"both be \[N, T\]"):
        utterance_log_likelihood(torch.zeros(2, 1), torch.ones(2, 2, dtype=torch.bool))


LISTS = st.lists(st.floats(-20, 0), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(LISTS, LISTS, st.floats(-3, 3))
def test_swapping_negates_and_a_shared_prior_cancels(liked: list[float], disliked: list[float], prior: float) -> None:
    first, second = torch.tensor(liked, dtype=torch.float64), torch.tensor(disliked, dtype=torch.float64)
    for combine in ("mean_difference", "log_odds"):
        value = follow_up_value(first, second, combine=combine)  # type: ignore[arg-type]
        assert float(follow_up_value(second, first, combine=combine)) == pytest.approx(-float(value), abs=1e-9)  # type: ignore[arg-type]
        moved = follow_up_value(first + prior, second + prior, combine=combine)  # type: ignore[arg-type]
        assert float(moved) == pytest.approx(float(value), abs=1e-9)


def test_each_combination() -> None:
    first, second = torch.tensor([-1.0, -3.0]), torch.tensor([-4.0, -4.0])
    found = [float(follow_up_value(first, second, combine=one)) for one in COMBINATIONS]  # type: ignore[arg-type]
    odds = math.log((math.exp(-1) + math.exp(-3)) / 2) + 4
    assert found == pytest.approx([2.0, odds, -2.0, 4.0], abs=1e-5)


def test_weights_choose_utterances() -> None:
    first, second = torch.tensor([-1.0, -3.0]), torch.tensor([-4.0, -6.0])
    only = torch.tensor([0.0, 2.0])
    for combine in ("mean_difference", "log_odds"):
        value = follow_up_value(first, second, combine=combine, positive_weights=only, negative_weights=only)  # type: ignore[arg-type]
        assert float(value) == pytest.approx(3.0)
    with pytest.raises(GuerdonError, match="not all 0"):
        follow_up_value(first, second, positive_weights=torch.zeros(2))
    with pytest.raises(GuerdonError, match="mean_difference"):
        follow_up_value(first, second, combine="mean_differenc")  # type: ignore[arg-type]
    with pytest.raises(GuerdonError, match="no utterance"):
        follow_up_value(torch.zeros(0), second)
