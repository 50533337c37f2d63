"""Neighbours of known keys in an embedding space."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.curation.key_search import nearest_key_search, short_sentences


def letters(texts: list[str]) -> np.ndarray:
    return np.array(
        [[text.casefold().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts], float
    )


def test_the_nearest_come_first() -> None:
    corpus = ["the solution", "a banana", "Solution", "solutions", "zzz", "x" * 40]
    found = nearest_key_search(letters, corpus, ["solution"], k=2)
    assert [one.text for one in found] == ["solutions", "the solution"], "the key itself and long texts are left out"
    assert found[0].similarity > found[1].similarity > 0.5 and {one.seed for one in found} == {"solution"}


def test_short_sentences() -> None:
    texts = ["One here. One here. " + "long " * 20 + "end.", "Two."]
    assert short_sentences(texts) == ["One here.", "Two."]


def test_what_is_refused() -> None:
    with pytest.raises(GuerdonError, match="got 0 and 5"):
        nearest_key_search(letters, ["a"], [])
    with pytest.raises(GuerdonError, match="of 1 sentences none"):
        nearest_key_search(letters, ["a" * 99], ["b"])
    with pytest.raises(GuerdonError, match=r"finite and \[N, d\]; got shape \(1,\)"):
        nearest_key_search(lambda texts: np.zeros(len(texts)), ["a"], ["b"])
