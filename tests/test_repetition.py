"""Repeated n-grams: the published count, which heavy repetition escapes, and the corrected one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.metrics.repetition import ngram_repetition

BLOCK = " ".join(f"word{place}" for place in range(40))


def repeated(times: int) -> str:
    return " ".join([BLOCK] * times)


@pytest.mark.parametrize(("times", "share"), [(1, 0.0), (2, 0.344), (3, 0.396), (10, 0.105), (50, 0.020)])
def test_the_published_count_is_nearly_blind_to_heavy_repetition(times: int, share: float) -> None:
    assert ngram_repetition(repeated(times), counting="distinct") == pytest.approx(share, abs=5e-4)


def test_a_thousand_copies_of_one_word() -> None:
    assert ngram_repetition("so " * 1000, counting="distinct") == pytest.approx(1 / 981)
    assert ngram_repetition("so " * 1000) == pytest.approx(980 / 981)


def test_the_corrected_count_grows_with_repetition() -> None:
    shares = [ngram_repetition(repeated(times)) for times in (1, 2, 3, 10, 50)]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] > 0.97
    assert shares[1] == pytest.approx(21 / 61)


@given(st.lists(st.sampled_from("ab"), max_size=60), st.integers(1, 25))
def test_shares_lie_in_the_unit_interval_and_short_texts_repeat_nothing(words: list[str], n: int) -> None:
    text = " ".join(words)
    published, corrected = ngram_repetition(text, n, counting="distinct"), ngram_repetition(text, n)
    assert 0 <= published <= corrected <= 1
    if len(words) <= n:
        assert corrected == 0


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ngram_repetition("a", 0)
    with pytest.raises(ValueError, match="counting"):
        ngram_repetition("a", counting="all")  # type: ignore[arg-type]
