"""Regularized relevance: its terms, what they compose to, and its facts."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.reward import reward
from guerdon.rewards.text.relevance import (
    LengthIncentive,
    LinearMap,
    Product,
    Relevance,
    TrigramDiversity,
    regularized_relevance,
    words,
)


@reward(name="given")
def given(prompts: object, completions: list[str], **columns: object) -> list[float]:
    return [float(one) for one in completions]


def test_the_cards_facts() -> None:
    text = "a b c a b c"
    assert TrigramDiversity()(None, [text, "a b", ""]) == [0.75, 1.0, 1.0]
    assert LengthIncentive()(None, [text]) == [0.06]
    mapped = LinearMap(given, (0.0, 3.5), (0.0, 5.12))
    assert mapped(["p"] * 3, ["1.75", "3.5", "7"]) == pytest.approx([2.56, 5.12, 10.24])
    assert LinearMap(given, (0.0, 3.5), clamp=True)(["p"], ["7"]) == pytest.approx([5.12])


def test_repeating_a_sentence_does_not_pay() -> None:
    sentence = "one two three four five six seven eight nine ten"
    product = Product([LengthIncentive(), TrigramDiversity()])
    once, often = product(["p"] * 2, [sentence, " ".join([sentence] * 20)])
    assert once == pytest.approx(0.1) and often == pytest.approx(0.1, rel=0.1), "LI RP stays about n / 100"


def test_words_and_tokens() -> None:
    assert words("It's 3.5!!!! ok") == ["It", "'", "s", "3", ".", "5", "!!!!", "ok"]
    assert LengthIncentive("token", scale=10, cap=0.3)(None, ["x", "y"], completion_ids=[[1, 2], [1] * 9]) == [0.2, 0.3]
    with pytest.raises(GuerdonError, match="no completion_ids"):
        LengthIncentive("token")(None, ["x"])
    with pytest.raises(GuerdonError, match="unit of a length 'words'.*'word'"):
        LengthIncentive("words")  # type: ignore[arg-type]


def test_relevance_is_to_what_the_user_said() -> None:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "the red house"}]
    said = Relevance()([messages, "the red house"], ["the red house", "ships"])
    assert said[0] == pytest.approx(1.0) and said[1] is not None and said[1] < 0.3
    assert Relevance()(["a"], [""]) == [0.0]


def test_the_branches() -> None:
    r3 = regularized_relevance(max_new_tokens=512)
    query, long = "the red house", "the red house by the old sea wall " * 2
    paid = r3([query] * 3, [long, "blue", "blue"], qtype=["OPENENDED", "CONSTRAINED", "CONSTRAINED"],
              reference=[None, "blue", "green boat"])  # fmt: skip
    factors = [one([query], [long])[0] for one in (Relevance(), LengthIncentive(), TrigramDiversity())]
    assert paid[0] == pytest.approx(float(np.prod(np.array(factors, float))))
    assert paid[1] == pytest.approx(5.12) and paid[2] is not None and paid[2] < 1.5
    with pytest.raises(GuerdonError, match="task type 'open'"):
        r3([query], ["x"], qtype=["open"], reference=[None])


def test_what_is_refused() -> None:
    with pytest.raises(GuerdonError, match="two different ends"):
        LinearMap(given, (1.0, 1.0))
    with pytest.raises(GuerdonError, match="no factors"):
        Product([])
    with pytest.raises(GuerdonError, match="n must be at least 1"):
        TrigramDiversity(0)
