"""chrF: equal, disjoint and empty texts, a value by hand, the weight of recall."""

from __future__ import annotations

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.metrics.character_overlap import character_f_score


def test_ends_of_the_scale() -> None:
    assert character_f_score("a cat", "a cat") == pytest.approx(1)
    assert character_f_score("abc", "xyz") == 0
    assert character_f_score("", "abc") == 0 and character_f_score("", " ") == 1
    assert character_f_score("a b c", "abc") == pytest.approx(1), "white space is left out"


def test_by_hand() -> None:
    # One-character grams of "ab" against "abc": precision 1, recall 2/3; two-character: 1 and 1/2.
    precision, recall = 1.0, (2 / 3 + 1 / 2) / 2
    assert character_f_score("ab", "abc", order=2) == pytest.approx(5 * precision * recall / (4 * precision + recall))
    assert character_f_score("abcd", "ab") > character_f_score("ab", "abcd"), "recall weighs more"
    with pytest.raises(GuerdonError):
        character_f_score("a", "a", order=0)
