"""Votes: the card's facts, ties, equivalence, and Condorcet's turning point."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.metrics.majority_vote import majority_right, majority_vote


def test_facts() -> None:
    assert majority_vote(["4", "4", "5", ""]).label == "4"
    assert majority_vote(["5", "5", "4", "5"]).label == "5"
    assert majority_vote(["2", "1", "1", "2"]).label == "2", "a tie goes to whoever was seen first"
    nobody = majority_vote(["", None, "  "])
    assert nobody.label == "" and nobody.voters == 0 and nobody.share == 0


def test_shares_and_entropy() -> None:
    vote = majority_vote(["4", "4", "5", ""])
    assert (vote.share, vote.voters) == (pytest.approx(2 / 3), 3)
    assert vote.entropy == pytest.approx(-(2 / 3) * math.log(2 / 3) - math.log(1 / 3) / 3)
    unanimous = majority_vote(["7"] * 5)
    assert unanimous.share == 1 and math.copysign(1, unanimous.entropy) == 1 and unanimous.entropy == 0


def test_equal_answers_are_one_party() -> None:
    answers = ["3", "1/2", "0.5", " 2/4 ", "3"]
    assert majority_vote(answers).label == "3", "three spellings of a half lose by words"
    vote = majority_vote(answers, equal=lambda a, b: Fraction(a) == Fraction(b))
    assert vote.label == "1/2" and vote.share == pytest.approx(0.6)


def test_ties_and_small_majorities() -> None:
    assert majority_vote(["1", "2"], tie="none").label == ""
    drawn = {majority_vote(["1", "2"], tie="random", seed=seed).label for seed in range(20)}
    assert drawn == {"1", "2"}
    assert majority_vote(["1", "1", "2", "3"], min_share=0.6).label == ""
    assert majority_vote(["1", "1", "2", "3"], min_share=0.5).label == "1"
    with pytest.raises(GuerdonError, match="unknown rule for ties 'last'"):
        majority_vote(["1"], tie="last")  # type: ignore[arg-type]
    with pytest.raises(GuerdonError, match="min_share"):
        majority_vote(["1"], min_share=2)


@pytest.mark.parametrize("voters", [1, 3, 8])
def test_a_majority_of_two_answers_turns_at_a_half(voters: int) -> None:
    assert majority_right(0.5, voters) == pytest.approx(0.5)
    if voters > 1:
        assert majority_right(0.6, voters) > 0.6 and majority_right(0.4, voters) < 0.4
    assert majority_right(0.0, voters) == 0 and majority_right(1.0, voters) == 1
    with pytest.raises(GuerdonError):
        majority_right(0.5, 0)
