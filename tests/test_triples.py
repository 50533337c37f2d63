"""Triples of a policy pool, ranked answers as pairs, prefixes, and what a sampled text is tidied of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.curation.triples import PolicyPool, PolicyTripleSampler, rank_to_pair, text_prefixes, tidied
from guerdon.models.scalar.tiny import tiny_tokenizer


def writer(letter: str):
    def sample(prompts: Sequence[str], seed: int) -> list[str]:
        rng = np.random.default_rng([seed, ord(letter)])
        return [f"{letter}{rng.integers(10**6)}." for _ in prompts]

    return sample


POOL = PolicyPool({letter: writer(letter) for letter in "abcd"})


def test_two_samples_of_one_policy_and_one_of_another() -> None:
    sampler = PolicyTripleSampler(["p", "q"], POOL, seed=3)
    triples = sampler.sample(60)
    for triple in triples:
        own, other = triple.policies
        assert triple.reference[0] == triple.positive[0] == own != other == triple.negative[0]
        assert triple.reference != triple.positive
    assert {triple.prompt for triple in triples} == {"p", "q"}
    assert len(Counter(triple.policies for triple in triples)) == 12  # every ordered pair of policies
    again = PolicyTripleSampler(["p", "q"], POOL, seed=3)
    assert again.sample(60) == triples and again.sample(5) != triples[:5]
    assert PolicyTripleSampler(["p", "q"], POOL, seed=4).sample(60) != triples


def test_as_a_pair() -> None:
    triple = PolicyTripleSampler(["p"], POOL).sample(1)[0]
    pair = triple.to_pair()
    assert pair.prompt == [{"role": "user", "content": "p"}] and pair.chosen[0]["content"] == triple.positive
    assert pair.rejected[0]["content"] == triple.negative
    assert pair.row == {"reference": triple.reference, "wrapper": "pretrain", "policies": list(triple.policies)}
    assert pair.to_row()["reference"] == triple.reference


def test_what_teaches_nothing_is_drawn_again() -> None:
    def often_empty(prompts, seed):
        return [text if place % 3 else " " for place, text in enumerate(writer("a")(prompts, seed))]

    sampler = PolicyTripleSampler(["p"], PolicyPool({"a": often_empty, "b": writer("b")}))
    assert len(sampler.sample(30)) == 30 and sampler.dropped > 5
    same = PolicyPool({name: lambda prompts, seed: ["x"] * len(prompts) for name in "ab"})
    with pytest.raises(GuerdonError, match="only 0 of 3 triples"):
        PolicyTripleSampler(["p"], same).sample(3)


def test_the_pool_loads_one_model_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(source, **options):
        loaded.append((source, options))
        return writer(source[0])

    monkeypatch.setattr("guerdon.curation.triples.CheckpointPolicy.from_pretrained", load)
    pool = PolicyPool({"one": "a/model", "two": "b/model", "three": writer("c")}, max_new_tokens=7)
    PolicyTripleSampler(["p"], pool).sample(40)
    assert sorted(source for source, _ in loaded) == ["a/model", "b/model"] and loaded[0][1] == {"max_new_tokens": 7}
    assert pool.sample("two", ["p"], 1)[0][0] == "b" and pool.sample("three", ["p"], 1)[0][0] == "c"
    with pytest.raises(GuerdonError, match="did you mean 'two'"):
        pool.sample("tow", ["p"], 1)
    with pytest.raises(GuerdonError, match="gave 0 texts to 1"):
        PolicyPool({"x": lambda prompts, seed: [], "y": writer("y")}).sample("x", ["p"], 1)
    with pytest.raises(GuerdonError, match="at least 2 policies"):
        PolicyPool({"x": writer("x")})


def test_ranked_answers() -> None:
    pair = rank_to_pair("q", ["best", "middling", "worst"], where="f:1")
    assert pair.row == {"reference": "best", "wrapper": "sft"} and pair.where == "f:1"
    assert (pair.chosen[0]["content"], pair.rejected[0]["content"]) == ("middling", "worst")
    for ranked, said in (
        (["a", "b"], "f:1: a ranked triple has 3 answers, got 2"),
        (["a", "b", "b"], "different"),
        (["a", " ", "b"], "empty"),
    ):
        with pytest.raises(GuerdonError, match=said):
            rank_to_pair("q", ranked, where="f:1")


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("A whole one. And a bro", "A whole one."),
        ('He said: "Yes." She', 'He said: "Yes."'),
        ("pi is 3.14 and", "pi is 3.14 and"),  # a point inside a number ends no sentence
        ("no end at all", "no end at all"),
        ("a line\nhalf a li", "a line"),
        ("so on. " * 9, "so on. so on. so on."),
        ("so on. " * 3, "so on. so on. so on."),
        ("", ""),
    ],
)
def test_tidied(text: str, wanted: str) -> None:
    assert tidied(text) == wanted


def test_prefixes_are_beginnings_that_leave_something_to_say() -> None:
    tokenizer = tiny_tokenizer(["x"], vocab=300)  # a byte a token
    texts = ["abcdefghij", "z", "0123456789"]
    found = text_prefixes(texts, 200, tokenizer, longest=4, seed=1)
    assert all(any(text.startswith(one) for text in texts[::2]) for one in found)
    assert {len(one) for one in found} == {1, 2, 3, 4}
    assert max(len(one) for one in text_prefixes(texts, 200, tokenizer)) == 9
    with pytest.raises(GuerdonError, match="at least 2 tokens"):
        text_prefixes(["z"], 1, tokenizer)
