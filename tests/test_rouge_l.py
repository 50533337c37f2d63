"""ROUGE-L: worked values, its bounds, and the bit-parallel count against the table that everyone learns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.metrics.rouge_l import longest_common_subsequence, rouge_l, words

LETTERS = st.lists(st.sampled_from("abcd"), max_size=80)


def by_table(first: list[str], second: list[str]) -> int:
    row = [0] * (len(second) + 1)
    for one in first:
        before = row
        row = [0]
        for place, other in enumerate(second):
            row.append(before[place] + 1 if one == other else max(before[place + 1], row[place]))
    return row[-1]


@given(LETTERS, LETTERS)
def test_the_bits_count_what_the_table_counts(first: list[str], second: list[str]) -> None:
    assert longest_common_subsequence(first, second) == by_table(first, second)


def test_worked_values() -> None:
    assert rouge_l("police kill the gunman", "police killed the gunman") == pytest.approx(0.75)
    assert rouge_l("a b", "a b c d") == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert rouge_l("b a", "a b") == pytest.approx(0.5)
    assert rouge_l("a b", "a b c d", beta=2.0) == pytest.approx(5 * 0.5 / (0.5 + 4))


def test_dotted_names_are_cut_at_every_sign() -> None:
    assert words("refinements.customer_reviews") == ["refinements", "customer", "reviews"]
    assert rouge_l("refinements.customer_reviews", "refinements.customer_price") == pytest.approx(2 / 3)
    assert rouge_l("add_to_cart.buy_now", "refinements.price") == 0.0


def test_equal_texts_without_words() -> None:
    assert rouge_l("...", "...") == 1.0 and rouge_l("", "") == 1.0
    assert rouge_l("...", "!!!") == 0.0 and rouge_l("", "a") == 0.0


@given(st.text(max_size=60), st.text(max_size=60))
def test_it_is_a_symmetric_share(first: str, second: str) -> None:
    value = rouge_l(first, second)
    assert 0 <= value <= 1 and value == pytest.approx(rouge_l(second, first))


def test_beta_is_positive() -> None:
    with pytest.raises(ValueError, match="beta"):
        rouge_l("a", "b", beta=0)


def test_a_long_text_is_no_burden() -> None:
    assert rouge_l("a " * 50_000, "b a " * 25_000) == pytest.approx(2 * 25_000 / 100_000)
