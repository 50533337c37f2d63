"""Numbers in words, written and read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.core.number_words import from_words, in_words


@given(st.integers(-999, 999))
def test_read_back(number: int) -> None:
    assert from_words(in_words(number)) == number
    assert from_words(in_words(number).upper().replace("-", " ")) == number


def test_known_words() -> None:
    assert in_words(205) == "two hundred and five" and in_words(-42) == "minus forty-two" and in_words(0) == "zero"
    assert from_words("Two hundred five") == 205 and from_words("negative seven") == -7


@pytest.mark.parametrize(
    "text", ["", "twelve apples", "twenty ten", "hundred", "zero hundred", "one hundred and", "x" * 200, "forty zero"]
)
def test_what_names_no_number(text: str) -> None:
    assert from_words(text) is None


def test_a_thousand_is_refused() -> None:
    with pytest.raises(GuerdonError, match="below a thousand, got 1000"):
        in_words(1000)
